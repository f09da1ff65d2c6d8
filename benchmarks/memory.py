"""Peak memory in training: weights, moments, gradients and the temporary memory of a step."""

import torch
from steps import COMPARED, batch, mlp, step_of
from torch.profiler import ProfilerActivity, profile

from bclightning.vocabulary import Regularizer


def peak(regularizer: Regularizer) -> float:
    """Peak memory of all tensors in MB, from building the network to its fourth step."""
    torch.manual_seed(0)
    images, labels = batch(100, 1, 28, 28)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step = step_of(mlp(regularizer), images, labels)
        for _ in range(4):
            step()
    level = highest = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            highest = max(highest, level)
    return highest / 1e6


def memory() -> None:
    """Peak memory in training as a multiple of that in full precision."""
    print("\nMNIST step, peak memory / full precision")
    peaks = {regularizer: peak(regularizer) for regularizer in COMPARED}
    for regularizer, value in peaks.items():
        goal = "   goal 1.10" if regularizer == "deterministic" else ""
        print(f"  {regularizer:<13}  {value / peaks['none']:5.2f}  {value:8.1f} MB{goal}")
