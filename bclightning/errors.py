"""Errors that the user can fix: one sentence, no traceback on the command line."""

from collections.abc import Iterable


class UserError(Exception):
    """A mistake, or a state of the machine, that the user can fix; the message says how.

    The command line prints the message alone and exits with code 2.
    """


class MachineError(UserError):
    """A fault of the machine and not of the run, which may succeed later or elsewhere."""


class DataError(MachineError):
    """A data file is missing, damaged or of another format."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory cannot be allocated, on a CPU or on a GPU.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        # torch's class for GPUs, by its name, since torch is not imported here.
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in said or "DefaultCPUAllocator: not enough memory" in said
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """A question that suggests the known word nearest to `word`; empty if none is near.

    Args:
        word: The unknown word.
        known: All known words.

    Example:
        >>> nearest("minst.yaml", ["mnist.yaml", "svhn.yaml"])
        ' (did you mean mnist.yaml?)'
        >>> nearest("quantized", ["mnist.yaml", "svhn.yaml"])
        ''
    """
    import difflib  # Slower to import than the rest of this module, and only for mistakes.

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""
