"""What the runs of a comparison have not in common, beside what is compared, in sentences."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from bclightning.compare.arms import Arm
from bclightning.compare.selection import names_of, some
from bclightning.runs.record import RunRecord

# Libraries that decide no result.
_NO_MATTER = ("wandb", "optuna")


def mixture_notes(arms: Sequence[Arm]) -> list[str]:
    """A sentence for each of epochs, experiment, stage, code, versions and machine that differs.

    Args:
        arms: The arms that are compared.
    """
    runs = [run for arm in arms for run in arm.runs]
    libraries = sorted(
        {name for run in runs for each in run.in_each_part("versions") for name in each}
    )
    noted = [
        _difference(arms, "epochs", lambda run: [str(run.epochs)]),
        _difference(arms, "experiment", lambda run: [run.experiment]),
        _difference(arms, "stage", lambda run: [run.stage]),
        _difference(arms, "code", _commits),
        *(
            _difference(arms, f"version of {name}", _version_of(name))
            for name in libraries
            if name not in _NO_MATTER
        ),
        _difference(arms, "machine", _machines),
        _not_committed(runs),
    ]
    return [note for note in noted if note]


def _difference(
    arms: Sequence[Arm], what: str, values: Callable[[RunRecord], Iterable[str]]
) -> str:
    """What differs, and which arms have it; empty where nothing does."""
    counts: dict[str, Counter[str]] = {}
    for arm in arms:
        for run in arm.runs:
            for value in dict.fromkeys(values(run)):
                counts.setdefault(value, Counter())[arm.label] += 1
    if len(counts) < 2:
        return ""
    told = [f"{value} ({_who(count, arms)})" for value, count in sorted(counts.items())]
    return f"The runs differ in {what}: {', '.join(told)}."


def _who(count: Counter[str], arms: Sequence[Arm]) -> str:
    total = count.total()
    runs = "1 run" if total == 1 else f"{total} runs"
    whose = "all arms" if len(count) == len(arms) > 1 else some(count)
    return f"{runs} of {whose}"


def _commits(run: RunRecord) -> Iterable[str]:
    for code in run.in_each_part("git"):
        yield code["commit"][:12] if code else "no commit"


def _version_of(name: str) -> Callable[[RunRecord], Iterable[str]]:
    return lambda run: (
        versions.get(name, "not recorded") for versions in run.in_each_part("versions")
    )


def _machines(run: RunRecord) -> Iterable[str]:
    for machine in run.in_each_part("machine"):
        known = [str(machine[key]) for key in ("device", "name") if key in machine]
        if "threads" in machine:
            known.append(f"threads {machine['threads']}")
        yield ", ".join(known) or "not recorded"


def _not_committed(runs: Sequence[RunRecord]) -> str:
    changed = [
        run for run in runs if any(code and code["dirty"] for code in run.in_each_part("git"))
    ]
    if not changed:
        return ""
    return (
        f"The code of {names_of(changed)} had changes that were not committed, so its commit does "
        "not say what ran."
    )
