"""Comparing runs: from records to tables, figures and pages; ``bclightning.compare(runs)``."""

from bclightning.callable_module import make_callable

make_callable(__name__, "bclightning.compare.comparison:compare")
