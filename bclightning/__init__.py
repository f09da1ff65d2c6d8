"""bclightning: train, compare and ship networks with binary weights on PyTorch Lightning."""

__version__ = "0.1.0"
