"""The peak of memory in training: weights, moments, gradients and what a step adds to them."""

import torch
from steps import METHODS, batch, mlp, step_of
from torch.profiler import ProfilerActivity, profile


def peak(method: str) -> float:
    """The peak of the memory of all tensors in MB, over a few steps from the network's making."""
    torch.manual_seed(0)
    images, labels = batch(100, 1, 28, 28)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step = step_of(mlp(method), images, labels)
        for _ in range(4):
            step()
    level = highest = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            highest = max(highest, level)
    return highest / 1e6


def memory() -> None:
    """The peak of training as a multiple of full precision's."""
    print("\nMNIST step, peak of memory / full precision")
    peaks = {method: peak(method) for method in METHODS}
    for method, value in peaks.items():
        goal = "   goal 1.10" if method == "deterministic" else ""
        print(f"  {method:<13}  {value / peaks['none']:5.2f}  {value:8.1f} MB{goal}")
