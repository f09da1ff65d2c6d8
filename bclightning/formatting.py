"""Sizes, counts, times, energies and scores as text; text from elsewhere, escaped."""

import re
import unicodedata

from bclightning.vocabulary import TEST_ERROR, VAL_ERROR


def megabytes(size: int) -> str:
    """A size in bytes as megabytes of 10**6 bytes.

    Example:
        >>> megabytes(363776)
        '0.36 MB'
    """
    return f"{size / 1e6:.2f} MB" if size < 10_000_000 else f"{size / 1e6:.1f} MB"


def short(number: float) -> str:
    """A count with three significant digits.

    Example:
        >>> [short(n) for n in (950, 10240, 2913290, 617_000_000)]
        ['950', '10.2 k', '2.91 M', '617 M']
    """
    return _scaled(number, ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1, "")))


def joules(energy: float) -> str:
    """An energy with three significant digits.

    Example:
        >>> joules(1.896e-3), joules(6.3e-5), joules(2.1e-9)
        ('1.90 mJ', '63.0 µJ', '2.10 nJ')
    """
    return _scaled(energy, ((1.0, " J"), (1e-3, " mJ"), (1e-6, " µJ"), (1e-9, " nJ"))).strip()


def _scaled(number: float, scales: tuple[tuple[float, str], ...]) -> str:
    # Rounding to three digits reaches a scale from slightly below it: 999.6 is 1.00 k, not 1000.
    scale, unit = next((pair for pair in scales if number >= 0.9995 * pair[0]), scales[-1])
    value = number / scale
    if not unit:
        return f"{value:.0f}"
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f}{unit}"


def duration(seconds: float) -> str:
    """A time in seconds, minutes and seconds, or hours and minutes.

    Example:
        >>> duration(7.25), duration(75.2), duration(7380)
        ('7.2 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def age(seconds: float) -> str:
    """How long ago something was, in its largest unit.

    Example:
        >>> age(5), age(150), age(7300), age(200_000)
        ('5 s', '2 min', '2 h', '2 d')
    """
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def score(metric: str, value: float) -> str:
    """A metric's value: errors in percent with two decimals, others with four significant digits.

    Example:
        >>> score("val/error", 1.234), score("val_loss", 0.123456)
        ('1.23 %', '0.1235')
    """
    return f"{value:.2f} %" if metric in (VAL_ERROR, TEST_ERROR) else f"{value:.4g}"


def describe_score(metric: str, value: float) -> str:
    """A metric's name and value.

    Example:
        >>> describe_score("val/error", 1.234), describe_score("val_acc", 0.9)
        ('validation error 1.23 %', 'val_acc 0.9')
    """
    names = {VAL_ERROR: "validation error", TEST_ERROR: "test error"}
    return f"{names.get(metric, metric)} {score(metric, value)}"


def printable(text: str) -> str:
    r"""Text from elsewhere, safe to print: control characters are escaped.

    So are line breaks, characters that change the direction of writing, and halves of surrogate
    pairs: what is shown is one line, and can be encoded. For Rich wrap it in ``rich.text.Text`` or
    print it with ``markup=False``, for brackets are ordinary characters.

    Example:
        >>> print(printable("cat\x1b[2J\n"), printable("Größe"))
        cat\x1b[2J\n Größe
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or unicodedata.category(character) == "Zs"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


# What Markdown acts on; an underscore within a word and a sign before a space are ordinary.
_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")


def markdown_text(text: str) -> str:
    r"""Text from elsewhere as Markdown that shows it and nothing else, also in a table's cell.

    Example:
        >>> print(markdown_text("a|b <img> [x](http://y)"), markdown_text("learning_rate"))
        a\|b \<img> \[x\](http://y) learning_rate
    """
    return _MARKUP.sub(r"\\\g<0>", printable(text))


def markdown_code(text: str) -> str:
    """Text from elsewhere as code in Markdown, also in a table's cell.

    Example:
        >>> print(markdown_code("model.learning_rate"), markdown_code("a`b"))
        `model.learning_rate` ``a`b``
    """
    shown = printable(text).replace("|", "\\|") or " "
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    room = " " if shown[0] == "`" or shown[-1] == "`" else ""
    return f"{fence}{room}{shown}{room}{fence}"
