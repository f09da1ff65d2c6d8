from .compare.comparison import compare as compare
from .compare.loading import load_runs as load_runs
from .functional import binarize_deterministic as binarize_deterministic
from .functional import binarize_stochastic as binarize_stochastic
from .functional import squared_hinge_loss as squared_hinge_loss
from .models import MLP as MLP
from .models import ConvNet as ConvNet
from .nn import BinaryConv2d as BinaryConv2d
from .nn import BinaryLinear as BinaryLinear
from .nn import clip_latent_weights_ as clip_latent_weights_
from .nn import convert_to_binary as convert_to_binary
from .nn import reestimate_batch_norm_ as reestimate_batch_norm_
from .runs import RunConfig as RunConfig
from .runs import RunRecord as RunRecord
from .runs import fit as fit
from .sweep.running import sweep as sweep
from .training import BinaryAdam as BinaryAdam
from .training import BinaryConnect as BinaryConnect
from .training import Classifier as Classifier
from .training import ClipWeights as ClipWeights

__version__: str
