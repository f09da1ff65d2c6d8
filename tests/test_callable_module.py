"""The package `bclightning.compare` can be called, and is light until it is."""

import subprocess
import sys

import pytest

FIRST_THE_PACKAGE = """
import bclightning.compare
result = bclightning.compare(runs())
from bclightning.compare.page import check_page
"""

FIRST_A_MODULE = """
from bclightning.compare.page import check_page
import bclightning
result = bclightning.compare(runs())
"""


@pytest.mark.parametrize("imports", [FIRST_THE_PACKAGE, FIRST_A_MODULE])
def test_it_is_called_and_imported_from_in_any_order(imports):
    code = f"""
def runs():
    from bclightning.runs.record import RunRecord
    done = {{"status": "finished", "best_epoch": 0}}
    return [RunRecord("a", "e", "none", "digits", 1, best_score=2.5, **done)]
{imports}
assert check_page.__module__ == "bclightning.compare.page"
print(result[0].arms[0].best_score)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("2.50\n", 0), done.stderr


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, bclightning.compare; "
        "heavy = {'torch', 'lightning', 'scipy', 'matplotlib', 'numpy', 'rich', 'wandb', 'pandas'};"
        "print(sorted(heavy & set(sys.modules)), callable(bclightning.compare))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"
