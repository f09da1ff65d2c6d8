"""Whole processes: the way to the first step, and sweeps with one worker and with two."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

FIRST_STEP = """
from bclightning.runs import RunConfig, fit
from lightning.pytorch import Callback
class Stop(Callback):
    def on_train_batch_end(self, *arguments):
        import os; os._exit(0)
fit(RunConfig.load("digits.yaml", {"wandb.mode": "offline"}), callbacks=[Stop()])
"""


def _seconds(command: list[str], folder: str, environment: dict[str, str] | None = None) -> float:
    began = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    return time.perf_counter() - began


def start_up() -> None:
    """`bcl fit` until its first step is done, beside importing Lightning."""
    imports = [sys.executable, "-c", "import lightning.pytorch"]
    ratios, times = [], []
    for turn in range(8):
        with tempfile.TemporaryDirectory() as folder:
            base = _seconds(imports, folder)
            ours = _seconds([sys.executable, "-c", FIRST_STEP], folder)
        if turn:  # the first fills the caches of files and of compiled code
            ratios.append(ours / base)
            times.append(ours)
    low, median, high = statistics.quantiles(ratios, n=4)
    print("\nbcl fit until the first step / import lightning.pytorch")
    print(
        f"  digits  {median:5.2f}  ({low:.2f} to {high:.2f})  "
        f"{statistics.median(times):5.2f} s   goal 1.30"
    )


def sweeps() -> None:
    """Trials in a second: two workers on two cores beside one worker with one thread."""
    trials = 12
    definition = {
        "recipe": "digits.yaml",
        "arms": ["stochastic"],
        "overrides": {"wandb.mode": "disabled", "trainer.max_epochs": 50},
        "space": {"model.learning_rate": {"low": 1e-3, "high": 1e-2}},
        "trials": trials,
        "final_seeds": 0,
    }
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(2):
        for jobs in rates:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "s.yaml").write_text(yaml.safe_dump(definition))
                command = [sys.executable, "-m", "bclightning", "sweep", "s.yaml"]
                process = subprocess.Popen(
                    [*command, "--jobs", str(jobs), "--threads", "1"],
                    cwd=folder,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                lines = process.stdout or ()
                ends = [time.perf_counter() for line in lines if ": finished" in line]
                process.wait()
            # From the first end to the last: the time of starting is another matter.
            rates[jobs].append((trials - jobs) / (ends[-1] - ends[jobs - 1]))
    one, two = (statistics.median(rates[jobs]) for jobs in (1, 2))
    print("\nsweep, trials in a second: two workers / one")
    print(f"  digits  {two / one:5.2f}  ({one:.2f} and {two:.2f} a second)   goal 1.80")
