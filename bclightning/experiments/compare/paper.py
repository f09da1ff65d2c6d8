"""The paper's figures, to stand beside ours (arXiv 1511.00363, tables 1 and 2)."""

# Test error in percent, by data set and row. MNIST: mean and standard deviation of six runs.
TEST_ERRORS = {
    ("mnist", "none"): "1.30 ± 0.04",
    ("mnist", "deterministic"): "1.29 ± 0.08",
    ("mnist", "stochastic"): "1.18 ± 0.04",
    ("mnist", "dropout"): "1.01 ± 0.04",
    ("cifar10", "none"): "10.64",
    ("cifar10", "deterministic"): "9.90",
    ("cifar10", "stochastic"): "8.27",
    ("svhn", "none"): "2.44",
    ("svhn", "deterministic"): "2.30",
    ("svhn", "stochastic"): "2.15",
    # Table 1: a small network, deterministic; the paper gives no figure for SGD without scaling.
    ("cifar10", "sgd-scaled"): "11.45",
    ("cifar10", "nesterov"): "15.65",
    ("cifar10", "nesterov-scaled"): "11.30",
    ("cifar10", "adam"): "12.81",
    ("cifar10", "adam-scaled"): "10.47",
}


def paper_error(data: str, row: str) -> str:
    """The paper's test error for a row, a hyphen where it gives none.

    Example:
        >>> paper_error("mnist", "stochastic"), paper_error("digits", "stochastic")
        ('1.18 ± 0.04', '-')
    """
    return TEST_ERRORS.get((data, row), "-")
