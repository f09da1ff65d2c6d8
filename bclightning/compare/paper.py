"""The paper's figures, to stand beside ours (arXiv 1511.00363, tables 1 and 2)."""

from bclightning.compare.statistics import Sample

# Test error in percent, by data set and arm. MNIST: mean and standard deviation of six runs.
TEST_ERRORS = {
    ("mnist", "none"): Sample(6, 1.30, 0.04),
    ("mnist", "deterministic"): Sample(6, 1.29, 0.08),
    ("mnist", "stochastic"): Sample(6, 1.18, 0.04),
    ("mnist", "dropout"): Sample(6, 1.01, 0.04),
    ("cifar10", "none"): Sample(1, 10.64),
    ("cifar10", "deterministic"): Sample(1, 9.90),
    ("cifar10", "stochastic"): Sample(1, 8.27),
    ("svhn", "none"): Sample(1, 2.44),
    ("svhn", "deterministic"): Sample(1, 2.30),
    ("svhn", "stochastic"): Sample(1, 2.15),
    # Table 1: a small network, deterministic; the paper gives no figure for SGD without scaling.
    ("cifar10", "sgd-scaled"): Sample(1, 11.45),
    ("cifar10", "nesterov"): Sample(1, 15.65),
    ("cifar10", "nesterov-scaled"): Sample(1, 11.30),
    ("cifar10", "adam"): Sample(1, 12.81),
    ("cifar10", "adam-scaled"): Sample(1, 10.47),
}


def paper_error(data: str, arm: str) -> Sample | None:
    """The paper's test error for an arm, ``None`` where it gives none.

    Example:
        >>> print(paper_error("mnist", "stochastic"), paper_error("digits", "stochastic"))
        1.18 ± 0.04 None
    """
    return TEST_ERRORS.get((data, arm))
