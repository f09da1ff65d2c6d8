from .config import RunConfig as RunConfig
from .data import SharedData as SharedData
from .interrupt import Interrupted as Interrupted
from .record import RunRecord as RunRecord
from .run import fit as fit
