"""Runs: made, recorded, tracked, evaluated."""
