"""Sizes and times in words."""


def megabytes(size: int) -> str:
    """A size in bytes as megabytes of 10**6 bytes.

    Example:
        >>> megabytes(363776)
        '0.36 MB'
    """
    return f"{size / 1e6:.2f} MB" if size < 10_000_000 else f"{size / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """A time in words.

    Example:
        >>> duration(75.2)
        '1 min 15 s'
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
