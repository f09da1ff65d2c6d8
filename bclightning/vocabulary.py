"""The words that code, files and tables share, each spelled once; nothing else is imported here."""

from typing import Literal, get_args

Regularizer = Literal["none", "dropout", "deterministic", "stochastic"]
"""What regularizes a network (table 2 of the paper): nothing, dropout, or binary weights."""

REGULARIZERS: tuple[Regularizer, ...] = get_args(Regularizer)
"""The regularizers in the paper's order."""

Binarization = Literal["deterministic", "stochastic"]
"""How a layer binarizes its latent weight in training (section 2.2)."""

LayerWeights = Literal["binary", "real", "sampled"]
"""What a layer multiplies by in evaluation: the signs, the latent weights, or a fresh draw."""

EvalWeights = Literal["binary", "real", "ensemble"]
"""Evaluation weights (section 2.6): the signs, the latent weights, or an ensemble of draws."""

PAPER_METHODS: dict[EvalWeights, int] = {"binary": 1, "real": 2, "ensemble": 3}
"""The numbers that section 2.6 gives to the evaluation weights."""

BatchNormStatistics = Literal["as trained", "re-estimated"]
"""Where batch-norm statistics come from: training's running averages, or a pass of their own."""

AS_TRAINED: BatchNormStatistics = "as trained"
RE_ESTIMATED: BatchNormStatistics = "re-estimated"

BATCH_NORM_STATISTICS: tuple[BatchNormStatistics, ...] = get_args(BatchNormStatistics)

Status = Literal["running", "finished", "interrupted", "failed", "pruned"]
"""How far a run came; a killed run stays ``running``."""

Stage = Literal["train", "tune", "final"]
"""What a run is for: itself, a sweep's search for a setting, or the setting that was found."""

MonitorMode = Literal["min", "max"]
"""Whether the lowest or the highest value of the monitored metric is the best."""

TRAIN_LOSS = "train/loss"
TRAIN_LOSS_STEP = "train/loss_step"
VAL_LOSS = "val/loss"
VAL_ERROR = "val/error"
TEST_LOSS = "test/loss"
TEST_ERROR = "test/error"
"""Names of the metrics that `bclightning.training.Classifier` logs; errors are in percent."""

DEFAULT_PORT = 13000
"""The port of a sweep's storage server, where its address names none."""
