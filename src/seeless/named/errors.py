"""What can go wrong with a name, and errors of others in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from seeless.errors import SeelessError, StrategyError, origin_of


class UnloadableModel(SeelessError):
    """A model that cannot be found or loaded."""

    exit_code = 6


class UnusablePlugin(SeelessError):
    """A plugin file that cannot be imported."""

    exit_code = 7


def one_line(error: BaseException) -> str:
    """The message of an error in one line; of foreign errors with several lines, the first.

    >>> one_line(OSError("not found" + chr(10) + "see https://example.org"))
    'not found'
    """
    text = str(error).strip()
    if isinstance(error, SeelessError):
        return " ".join(text.split())
    if isinstance(error, KeyError) or not text:
        return f"{type(error).__name__} {text}".strip()
    return text.splitlines()[0].strip()


def with_kind(error: BaseException) -> str:
    """An error of others in one line, its type first.

    >>> with_kind(KeyError("sum")), with_kind(ValueError("no" + chr(10) + "more")), with_kind(StopIteration())
    ("KeyError: 'sum'", 'ValueError: no', 'StopIteration')
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


@contextmanager
def naming_strategies() -> Iterator[None]:
    """Exceptions out of a strategy's own code become one sentence that begins with the line that raised.

    Raises:
        StrategyError: in place of the exception.
    """
    try:
        yield
    except SeelessError:
        raise
    except Exception as error:
        if (origin := origin_of(error)) is None:
            raise
        raise StrategyError(f"{origin}: {with_kind(error)}") from error
