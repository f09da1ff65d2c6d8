"""bclightning: train, compare and ship networks with binary weights on PyTorch Lightning.

Three doors: the library for a Lightning project of your own (`convert_to_binary`, `BinaryConnect`),
runs and their comparison (`fit`, `sweep`, `load_runs`, `compare`), and the packed model
(`bclightning.inference.load`). A name is imported when it is first asked for; the stub file beside
this one lists them all.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
