"""How the runs of a sweep came about, in words of Markdown."""

from bclightning.compare.metric import Metric
from bclightning.formatting import markdown_code, markdown_text
from bclightning.sweep.definition import Choices, Definition, Range


def sweep_protocol(definition: Definition, monitor: Metric) -> list[str]:
    """What a reader of a sweep's table needs to know of it, a sentence or two for each step.

    Args:
        definition: The sweep's definition.
        monitor: The metric that chose among the trials.

    Example:
        >>> content = {"recipe": "digits.yaml", "methods": ["none", "dropout"], "final_seeds": 2}
        >>> for step in sweep_protocol(Definition.parse(content, "digits"), Metric("val/error")):
        ...     print(step)
        Recipe `digits.yaml` as it is.
        No search: all settings are given.
        2 final runs of each arm, each with a seed of its own; the test set was for them alone.
    """
    overrides = ", ".join(
        markdown_code(f"{key}: {value}") for key, value in definition.overrides.items()
    )
    recipe = markdown_code(definition.recipe)
    steps = [f"Recipe {recipe} {f'with {overrides}' if overrides else 'as it is'}."]
    if definition.trials:
        searched = " and ".join(
            f"{markdown_code(key)} {_extent(s)}" for key, s in definition.space.items()
        )
        steps.append(
            f"Search, the same for each arm: {definition.trials} trials of {searched}, drawn by "
            "Optuna's TPE sampler, whose first ten draws are random and here the same for each "
            f"arm, and trained with seed {definition.seed}. The trial with the "
            f"{markdown_text(monitor.best)} gives the arm its setting."
        )
    else:
        steps.append("No search: all settings are given.")
    if definition.final_seeds:
        each = "1 final run of each arm"
        if definition.final_seeds > 1:
            each = f"{definition.final_seeds} final runs of each arm, each with a seed of its own"
        steps.append(f"{each}; the test set was for them alone.")
    return steps


def _extent(searched: Range | Choices) -> str:
    match searched:
        case Range():
            steps = f" in steps of {searched.step:g}" if searched.step else ""
            scale = " on a logarithmic scale" if searched.log else ""
            return f"from {searched.low:g} to {searched.high:g}{steps}{scale}"
        case Choices():
            return f"among {markdown_text(', '.join(map(str, searched.choices)))}"
