"""The errors that are the user's to mend: one sentence, no traceback on the command line."""


class UserError(Exception):
    """A mistake or a state of the machine that the user can mend; the message says how.

    The command line prints the message alone and exits with code 2.
    """


class DataError(UserError):
    """A data file is missing, damaged or not what it should be."""
