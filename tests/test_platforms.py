"""What Windows and macOS lack, taken away: the package trains, records, exports and predicts.

Simulated on whatever system the tests run on, in processes of their own, before the package is
imported. It shows that no such name is needed, and not what another system does differently.
"""

import subprocess
import sys

import pytest

# Each takes something away, or lets it fail as it does elsewhere.
LACKING = {
    "register_at_fork": "del os.register_at_fork",
    "fchmod": "del os.fchmod",
    "chmod": "os.chmod = refuse",
    "setsid": "del os.setsid",
    "poll": "import select; del select.poll",
    "fsync of folders": """
whole_open = os.open
def open_no_folder(path, *arguments, **keywords):
    # Python's own removal of folders knows another way.
    if "dir_fd" not in keywords and os.path.isdir(path):
        refuse()
    return whole_open(path, *arguments, **keywords)
os.open = open_no_folder
""",
    "fsync": "os.fsync = refuse",
    "posix_fallocate": "del os.posix_fallocate",
    "link": "os.link = refuse",
    "fcntl": "sys.modules['fcntl'] = None",
    "resource": "sys.modules['resource'] = None",
    "signals": """
import signal
for name in ("SIGHUP", "SIGALRM", "SIGCHLD"):
    delattr(signal, name)
""",
    "SIGKILL": "import signal; del signal.SIGKILL, signal.SIGSTOP, signal.SIGUSR1, signal.SIGUSR2",
    "fork": """
import multiprocessing.context
multiprocessing.context.reduction.HAVE_SEND_HANDLE = False
del multiprocessing.context.ForkServerProcess
for method in ("fork", "forkserver"):
    del multiprocessing.context._concrete_contexts[method]
sys.modules["multiprocessing.forkserver"] = None
del multiprocessing.forkserver
del os.fork
""",
    "/proc": """
import pathlib
whole_read = pathlib.Path.read_text
def read_no_proc(self, *arguments, **keywords):
    if str(self).startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory", str(self))
    return whole_read(self, *arguments, **keywords)
pathlib.Path.read_text = read_no_proc
""",
    "home": "[os.environ.pop(name, None) for name in ('HOME', 'USERPROFILE')]",
}

# The libraries have ways of their own on each system, which they choose when they are imported.
PRELUDE = """
import errno, os, sys
import torch, lightning.pytorch, numba, optuna, wandb, torchmetrics, scipy.io, sklearn.datasets
import jsonargparse, matplotlib.pyplot, filelock, multiprocessing.forkserver, torch.multiprocessing
def refuse(*arguments, **keywords):
    raise PermissionError(errno.EPERM, "Operation not permitted")
"""

IMPORTS = """
import bclightning.cli.fit, bclightning.cli.predict, bclightning.cli.export
import bclightning.cli.sweep, bclightning.cli.compare, bclightning.sweep.running
from bclightning import convert_to_binary
from bclightning.storage import write_text
import torch
torch.save(convert_to_binary(torch.nn.Sequential(torch.nn.Linear(3, 2)))(torch.ones(1, 3)), "a")
write_text("b", "b")
"""

TRAINS = """
from bclightning.cli.main import main
options = ["--trainer.max_epochs=1", "--wandb.mode=disabled", "--model.network.hidden=[16]"]
regularizer = "--model.network.regularizer=stochastic"
main(["fit", "--config=digits", "--run_id=r", regularizer, *options])
main(["export", "r", "--tolerance=50"])
import numpy as np
np.save("image.npy", np.zeros((8, 8), "uint8"))
main(["predict", "r.safetensors", "--images", "image.npy", "--output", "scores.csv"])
main(["predict", "r"])
main(["test", "r"])
main(["compare", "results/runs/digits-fit"])
import yaml
with open("small.yaml", "w") as file:
    arms = {"none": {"model.network.hidden": [16], "trainer.max_epochs": 1}}
    yaml.safe_dump({"recipe": "digits.yaml", "arms": arms, "trials": 0, "final_seeds": 1}, file)
main(["sweep", "small.yaml", "--wandb.mode", "disabled"])
"""


# Each in a child of one process that has imported the libraries.
EACH = """
import traceback
for name, code in LACKING.items():
    child = os.fork()
    if child == 0:
        try:
            exec(code + IMPORTS, {**globals()})
        except BaseException:
            print(name, traceback.format_exc(), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(name, "works" if status == 0 else "fails", flush=True)
"""


def run(folder, code: str) -> str:
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=folder,
    )
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr, process.stderr
    return process.stdout


@pytest.mark.slow
def test_the_package_is_imported_and_converts_and_writes_without_each_of_them(tmp_path):
    code = f"{PRELUDE}\nLACKING = {LACKING!r}\nIMPORTS = {IMPORTS!r}\n{EACH}"
    assert run(tmp_path, code).splitlines() == [f"{name} works" for name in LACKING]


@pytest.mark.slow
def test_it_trains_exports_predicts_and_sweeps_without_any_of_them(tmp_path):
    # Lightning asks the system, and not Python, whether there are these.
    lacking = [code for name, code in LACKING.items() if name != "SIGKILL"]
    said = run(tmp_path, "\n".join([PRELUDE, *lacking, TRAINS]))
    assert "best epoch" in said
    assert (tmp_path / "results/runs/digits-fit/r/run.json").exists()
    assert (tmp_path / "results/runs/small/small-none-s1/run.json").exists()
    assert (tmp_path / "scores.csv").read_text().count("\n") == 2
