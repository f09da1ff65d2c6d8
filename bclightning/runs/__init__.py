"""One run: its configuration, its training, its record; as functions that print nothing."""

import lazy_loader

# What reads records, as a comparison does, must not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
