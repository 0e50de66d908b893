"""What can go wrong with a name, and errors out of a strategy's own code in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from seeless.errors import SeelessError, StrategyError, origin_of, with_kind


class UnloadableModel(SeelessError):
    """A model that cannot be found or loaded."""

    exit_code = 6


class UnusablePlugin(SeelessError):
    """A plugin file that cannot be imported."""

    exit_code = 7


class ImpossiblePlace(SeelessError, ValueError):
    """A device, numbers or an attention implementation that no model can compute with here."""

    exit_code = 2


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
