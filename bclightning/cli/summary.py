"""`bcl summary`: what each layer of a network costs, and what binary weights save."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bclightning.cli.command_line import names_recipe, run_of_config
from bclightning.costs import LayerCost, Operations, energy, layer_costs
from bclightning.errors import UserError
from bclightning.formatting import joules, megabytes, printable, short
from bclightning.runs.config import NamedRun, RunConfig, add_allow_code, merge_file
from bclightning.runs.data import data_name
from bclightning.runs.origin import find_own_modules
from bclightning.runs.recipes import read_config, resolve_recipe
from bclightning.training import Classifier

DESCRIPTION = (
    "Parameters, bits, operations and energy of a network, by layer. Neither data nor checkpoints "
    "are read."
)


@dataclass
class SummaryOptions:
    """Options of the command itself.

    Args:
        image_shape: Shape of an image, as [3,32,32], where the data module does not say it.
    """

    image_shape: list[int] | None = None


class _Network(NamedRun):
    """An argument that names a run, a configuration file or a recipe."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Merge the configuration that the argument names."""
        if values is None:
            return
        if (run := run_of_config(values)) is not None:
            super().__call__(parser, cfg, run, option_string)
        elif names_recipe(values):
            path = resolve_recipe(values)
            find_own_modules(read_config(path))
            merge_file(parser, cfg, path)
        else:
            super().__call__(parser, cfg, values, option_string)


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN|CONFIG",
        action=_Network,
        help="Run, configuration file or recipe.",
    )
    parser.add_argument("--run", dest="run", metavar="RUN", action=NamedRun, help="Run.")
    parser.add_class_arguments(SummaryOptions, None)
    add_allow_code(parser)


def run(options: Namespace) -> int:
    """Print costs by layer, and the float twin beside the network."""
    built = RunConfig.from_parsed(options, [SummaryOptions]).build()
    model, data = built.model, built.data
    if not isinstance(model, Classifier):
        raise UserError(
            f"{type(model).__name__} is no Classifier, so its network is not known; "
            "bclightning.costs.layer_costs takes any network and image shape"
        )
    shape = options.image_shape or getattr(data, "image_shape", None)
    if shape is None:
        raise UserError(
            f"{type(data).__name__} does not say what shape its images have; give --image_shape "
            "[3,32,32], or the data module an attribute image_shape"
        )
    try:
        costs = layer_costs(model.network, shape)
    except RuntimeError as error:
        sides = " x ".join(map(str, shape))
        raise UserError(
            f"the network does not take the images of {data_name(data)}, {sides}: {error}"
        ) from error
    title = f"{type(model.network).__name__} on {data_name(data)}, per image"
    console = Console()
    console.print(_layers(title, costs))
    console.print(_beside_its_twin(costs))
    for line in _remarks(costs):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return 0


def _layers(title: str, costs: Sequence[LayerCost]) -> Table:
    # So narrow that it fits a terminal of 80 columns.
    table = Table(
        title=Text(printable(title)),
        title_justify="left",
        show_footer=True,
        box=box.SIMPLE_HEAVY,
        padding=0,
        show_edge=False,
    )
    test, train = _total(costs, "test"), _total(costs, "train")
    columns = (
        ("layer", "total"),
        ("shape", ""),
        ("weights", ""),
        ("number", short(sum(cost.parameters for cost in costs))),
        ("bits", short(sum(cost.bits for cost in costs))),
        ("test x", short(test.multiplications)),
        ("test +", short(test.additions)),
        ("train x", short(train.multiplications)),
        ("train +", short(train.additions)),
    )
    for place, (header, footer) in enumerate(columns):
        right = place >= 3
        table.add_column(header, footer, justify="right" if right else "left", no_wrap=right)
    for cost in costs:
        counts = [
            "-" if done is None else short(number)
            for done in (cost.test, cost.train)
            for number in ((done.multiplications, done.additions) if done else (0, 0))
        ]
        table.add_row(
            Text(printable(cost.name or cost.kind)),
            "x".join(map(str, cost.shape)),
            "binary" if cost.binary else "real",
            short(cost.parameters),
            short(cost.bits),
            *counts,
        )
    return table


def _total(costs: Sequence[LayerCost], which: str) -> Operations:
    return sum((getattr(cost, which) or Operations() for cost in costs), Operations())


def _beside_its_twin(costs: Sequence[LayerCost]) -> Table:
    bits = sum(cost.bits for cost in costs)
    parameters = sum(cost.parameters for cost in costs)
    float_bits = 32 * parameters
    test, train = _total(costs, "test"), _total(costs, "train")
    float_test, float_train = _total(costs, "float_test"), _total(costs, "float_train")
    ours, twin = energy(test, bits), energy(float_test, float_bits)
    rows: list[tuple[str, float, float, str, str]] = [
        ("parameters", parameters, parameters, f"{parameters:,}", f"{parameters:,}"),
        ("size", float_bits, bits, megabytes(float_bits // 8), megabytes(-(-bits // 8))),
    ]
    for label, before, after in (
        ("test, multiplications", float_test.multiplications, test.multiplications),
        ("test, additions", float_test.additions, test.additions),
        ("training, multiplications", float_train.multiplications, train.multiplications),
        ("training, additions", float_train.additions, train.additions),
    ):
        rows.append((label, before, after, short(before), short(after)))
    for label, used, left in (
        ("energy, arithmetic", twin.arithmetic, ours.arithmetic),
        ("energy, reading weights", twin.traffic, ours.traffic),
        ("energy", twin.total, ours.total),
    ):
        rows.append((label, used, left, joules(used), joules(left)))
    table = Table(title="With binary weights at test time, and in training", title_justify="left")
    for header in ("per image", "float twin", "this network", "ratio"):
        table.add_column(header, justify="left" if header == "per image" else "right")
    for label, whole, part, in_words, part_in_words in rows:
        table.add_row(label, in_words, part_in_words, f"{whole / part:.1f}" if part else "-")
    return table


def _remarks(costs: Sequence[LayerCost]) -> list[str]:
    lines = []
    products = [cost for cost in costs if cost.binary]
    before = _total(products, "float_train").multiplications
    after = _total(products, "train").multiplications
    if before:
        lines.append(
            f"Binary weights take {100 * (before - after) / before:.1f} % of the multiplications "
            "out of training's products (the paper: about 2/3). Forward, and for the gradient of "
            "inputs, which the first layer does not need; not for the gradient of weights."
        )
    else:
        lines.append("No weight is binary: this network is its own twin.")
    unknown = sorted({cost.kind for cost in costs if cost.test is None})
    if unknown:
        lines.append(f"Not counted, since we have no rule for them: {', '.join(unknown)}.")
    lines.append(
        "Energy is an estimate for a 45 nm process: 3.7 pJ a multiplication, 0.9 pJ an addition "
        "of 32-bit floats, 1.3 nJ for 64 bits from DRAM, each weight read once (M. Horowitz, ISSCC "
        "2014); activations, pooling and the moving of images are left out on both sides."
    )
    return lines
