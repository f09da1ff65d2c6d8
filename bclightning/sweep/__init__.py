"""Sweeps: one Optuna study for each arm with the same budget, then final runs on fresh seeds.

The package can be called: ``bclightning.sweep(definition)`` runs a sweep, see
`bclightning.sweep.running.sweep`.
"""

from bclightning.callable_module import make_callable

make_callable(__name__, "bclightning.sweep.running:sweep")
