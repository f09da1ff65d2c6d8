"""What `bcl validate` and `bcl test` share: the results of a trained network on a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from bclightning.cli.parser import TRAINED_NETWORK
from bclightning.cli.tables import results_table
from bclightning.errors import MachineError, UserError
from bclightning.evaluation import EvaluationResult, default_evaluation
from bclightning.runs.config import NamedRun, RunConfig, add_allow_code
from bclightning.runs.evaluate import ENSEMBLE_SIZE, Split, evaluate
from bclightning.runs.notices import logger
from bclightning.runs.rebuild import TrainedNetwork, rebuild
from bclightning.runs.record import RunRecord
from bclightning.vocabulary import TEST_ERROR, VAL_ERROR, EvalWeights


@dataclass
class EvaluateOptions:
    """Options of `bcl validate` and `bcl test`.

    Args:
        ckpt_path: Checkpoint to evaluate; the run's best one if left out.
        eval_weights: Evaluation weights (section 2.6), binary, real or ensemble; binary and real if
            left out.
        ensemble_size: Number of networks in the ensemble, drawn by the stochastic rule; 10 if left
            out.
    """

    ckpt_path: str | None = None
    eval_weights: EvalWeights | None = None
    ensemble_size: int | None = None


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the arguments of both commands."""
    add_run_argument(parser)
    parser.add_class_arguments(EvaluateOptions, None)


def add_run_argument(parser: LightningArgumentParser) -> None:
    """Add the argument that names a run, by itself or with --run."""
    text = "Run: its folder, or its id below results/runs."
    parser.add_argument("run", nargs="?", metavar="RUN", action=NamedRun, help=text)
    parser.add_argument("--run", dest="run", metavar="RUN", action=NamedRun, help=text)
    add_allow_code(parser)


def trained_network(config: RunConfig, ckpt_path: str | None, command: str) -> TrainedNetwork:
    """The trained network that a command line names.

    Raises:
        UserError: It names none, or none that there is.
    """
    if config.run is None and ckpt_path is None:
        raise UserError(f"name {TRAINED_NETWORK.format(name=command)}")
    return rebuild(config, ckpt_path)


def evaluate_and_print(options: Namespace, split: Split) -> int:
    """Evaluate a trained network on a split, and print the results."""
    size = options.ensemble_size
    if size is not None and (options.eval_weights != "ensemble" or size < 1):
        raise UserError("--ensemble_size is a positive number, for --eval_weights ensemble")
    config = RunConfig.from_parsed(options, [EvaluateOptions])
    network = trained_network(config, options.ckpt_path, split)
    metric = network.test_metric
    if split == "validate":
        metric = network.monitor if metric != TEST_ERROR else VAL_ERROR
    results = evaluate(
        network.model,
        network.data,
        network.trainer,
        split,
        metric,
        network.make_trainer,
        options.eval_weights,
        size or ENSEMBLE_SIZE,
    )
    what = "test" if split == "test" else "validation"
    heading = f"{what} error" if metric.endswith("/error") else metric
    title = f"{network.name}: {heading}"
    Console().print(results_table(title, metric, results, default_evaluation(network.model)))
    if split == "test":
        try:
            _complete_record(network, results)
        except MachineError as error:
            # The results are there to be read, where nothing may be written too.
            logger.info("they are not added to the run's record: %s", error)
    return 0


def _complete_record(network: TrainedNetwork, results: Sequence[EvaluationResult]) -> None:
    """Add to the record of a finished run the test results that it does not have yet."""
    record, folder = network.record, network.folder
    if record is None or folder is None or not _new_entries(record, results):
        return
    with folder.lock():
        # Another test may have added its own meanwhile.
        record = RunRecord.read(folder.record)
        if new := _new_entries(record, results):
            record.test += new
            record.write(folder.record)


def _new_entries(record: RunRecord, results: Sequence[EvaluationResult]) -> list[dict[str, Any]]:
    if record.status != "finished" or record.stage == "tune":
        return []
    return [
        result.entry()
        for result in results
        if record.tested_with(result.weights, result.batch_norm) is None
    ]
