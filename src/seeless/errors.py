"""Every error seeless raises on purpose. Each message names what was given, what is possible and what to do next."""

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

LONGEST_REASON = 600  # characters of a message of others
LONGEST_MESSAGE = 4000  # of our own ones, which may list several things


class SeelessError(Exception):
    """Base class of all errors raised by seeless.

    `exit_code` is what the command line ends with; `seeless.cli.errors.EXIT_CODES` says what each means.
    """

    exit_code: ClassVar[int] = 1


class UnknownStrategy(SeelessError, LookupError):
    """No strategy is registered under this name."""

    exit_code = 2


class UnsupportedModel(SeelessError, TypeError):
    """This model, or this use of it, cannot be reduced correctly."""

    exit_code = 4


class BudgetError(SeelessError, ValueError):
    """A budget, layer or other field of a strategy that cannot be met."""

    exit_code = 2


class InputError(SeelessError, ValueError):
    """The inputs of one forward cannot be reduced correctly."""


class StrategyError(InputError):
    """A strategy's own code is wrong, or gave what cannot be used."""

    exit_code = 7


class Origin(str):
    """A note on an exception out of a strategy's code: file, line, strategy, stage."""

    __slots__ = ()


def origin_of(error: BaseException) -> Origin | None:
    """Where in a strategy's code an exception was raised; None if it was not."""
    return next((note for note in getattr(error, "__notes__", []) if isinstance(note, Origin)), None)


class AlreadyApplied(SeelessError, RuntimeError):
    """The model already carries a strategy."""


class MissingExtra(SeelessError, ImportError):
    """An optional package is needed for this; the message has the install command."""

    exit_code = 3


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
    """What was given, for a message: a path as it is, bytes by their number, else as Python writes it; `shortened`.

    >>> brief("cat.jpg"), brief(Path("cat.jpg")), brief(b"abc"), brief("x" * 28000, limit=20)
    ("'cat.jpg'", 'cat.jpg', '3 bytes', "'xxxxxxxxx...xxxx' (28002 characters)")
    """
    if isinstance(given, bytes):
        return f"{len(given):,} bytes"
    return shortened(str(given) if isinstance(given, Path) else repr(given), limit)


def shortened(text: str, limit: int = 300) -> str:
    """A text without the middle of a long one; half of a surrogate pair, which cannot be printed, as an escape.

    >>> shortened("a" * 9), shortened("a" * 99, limit=8), shortened(chr(0xD800))
    ('aaaaaaaaa', 'aaaa...aa (99 characters)', '\\\\ud800')
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}...{text[-(limit // 4) :]} ({len(text)} characters)"


def one_line(error: BaseException) -> str:
    """The message of an error in one line; of foreign errors the first line, without the middle of a long one.

    >>> one_line(OSError("not found" + chr(10) + "see https://example.org")), one_line(KeyError("sum"))
    ('not found', "KeyError 'sum'")
    """
    text = str(error).strip()
    if isinstance(error, SeelessError):
        return shortened(" ".join(text.split()), LONGEST_MESSAGE)
    if isinstance(error, KeyError) or not text:
        text = f"{type(error).__name__} {text}".strip()
    return shortened(text.splitlines()[0].strip(), LONGEST_REASON)


def with_kind(error: BaseException) -> str:
    """An error of others in one line, its type first.

    >>> with_kind(KeyError("sum")), with_kind(ValueError("no" + chr(10) + "more")), with_kind(StopIteration())
    ("KeyError: 'sum'", 'ValueError: no', 'StopIteration')
    """
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    return f"{kind}: {shortened(lines[0].strip(), LONGEST_REASON)}" if lines else kind


def system_reason(error: BaseException) -> str:
    """Why the system refused: an `OSError` without the name of the file, which may be long; else `one_line`.

    >>> system_reason(OSError(2, "No such file or directory", "x" * 28000))
    'No such file or directory'
    """
    return (isinstance(error, OSError) and error.strerror) or one_line(error)
