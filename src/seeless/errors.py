"""Every error seeless raises on purpose. Each message names what was given, what is possible and what to do next."""

import difflib
from collections.abc import Collection
from pathlib import Path


class SeelessError(Exception):
    """Base class of all errors raised by seeless."""


class UnknownStrategy(SeelessError, LookupError):
    """No strategy is registered under this name."""


class UnsupportedModel(SeelessError, TypeError):
    """This model, or this use of it, cannot be reduced correctly."""


class BudgetError(SeelessError, ValueError):
    """A budget, layer or other field of a strategy that cannot be met."""


class InputError(SeelessError, ValueError):
    """The inputs of one forward cannot be reduced correctly."""


class AlreadyApplied(SeelessError, RuntimeError):
    """The model already carries a strategy."""


class MissingExtra(SeelessError, ImportError):
    """An optional package is needed for this; the message has the install command."""


def did_you_mean(name: str, known: Collection[str], cutoff: float = 0.5) -> str:
    """What an error says of a name that is unknown but resembles known ones; "" if it resembles none.

    Args:
        cutoff: how alike they must be, in 0..1 (`difflib.get_close_matches`).

    >>> did_you_mean("fastvv", ["fastv", "pool"]), did_you_mean("x", ["fastv"])
    ('did you mean fastv?', '')
    """
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}?" if near else ""


def brief(given: object, limit: int = 300) -> str:
    """What was given, for a message: a path as it is, anything else as Python writes it, `shortened`.

    >>> brief("cat.jpg"), brief(Path("cat.jpg")), brief("x" * 28000, limit=20)
    ("'cat.jpg'", 'cat.jpg', "'xxxxxxxxx...xxxx' (28002 characters)")
    """
    return shortened(str(given) if isinstance(given, Path) else repr(given), limit)


def system_reason(error: Exception) -> str:
    """Why the system refused: an `OSError` without the name of the file, which may be long.

    >>> system_reason(OSError(2, "No such file or directory", "x" * 28000))
    'No such file or directory'
    """
    return shortened(getattr(error, "strerror", None) or str(error))


def shortened(text: str, limit: int = 300) -> str:
    """A text without the middle of a long one; half of a surrogate pair, which cannot be printed, as an escape.

    >>> shortened("a" * 9), shortened("a" * 99, limit=8), shortened(chr(0xD800))
    ('aaaaaaaaa', 'aaaa...aa (99 characters)', '\\\\ud800')
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}...{text[-(limit // 4) :]} ({len(text)} characters)"
