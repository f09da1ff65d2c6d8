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
