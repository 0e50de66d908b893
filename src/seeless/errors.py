"""Every error seeless raises on purpose. Each message names what was given, what is possible and what to do next."""

import difflib
from collections.abc import Collection
from typing import ClassVar


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
