"""Sweeps: one Optuna study an arm, the same budget for each, and final runs on fresh seeds."""
