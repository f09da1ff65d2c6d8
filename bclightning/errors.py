"""The errors that are the user's to mend: one sentence, no traceback on the command line."""

from collections.abc import Iterable


class UserError(Exception):
    """A mistake or a state of the machine that the user can mend; the message says how.

    The command line prints the message alone and exits with code 2.
    """


class MachineError(UserError):
    """A state of the machine and not of the run, which may go well later or elsewhere."""


class DataError(MachineError):
    """A data file is missing, damaged or not what it should be."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A question that suggests the known word nearest to `word`, or nothing when none is near.

    Example:
        >>> nearest("minst.yaml", ["mnist.yaml", "svhn.yaml"])
        ' (did you mean mnist.yaml?)'
    """
    import difflib  # costs more than all else here, and is for a mistake alone

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""
