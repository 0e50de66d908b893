"""What can go wrong with a name, and errors out of a strategy's own code in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from seeless.errors import SeelessError, StrategyError, origin_of, with_kind
from seeless.named.beside import PREFIX


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
    """Exceptions out of a strategy's own code, or of a plug-in's, become one sentence that begins with the line.

    Raises:
        StrategyError: in place of the exception.
    """
    try:
        yield
    except SeelessError:
        raise
    except (Exception, SystemExit) as error:
        if (origin := origin_of(error) or _line_of_a_plugin(error)) is None:
            raise
        raise StrategyError(f"{origin}: {with_kind(error)}") from error


def _line_of_a_plugin(error: BaseException) -> str | None:
    """File, line and function of the deepest code of a plug-in that an exception went through; None without any."""
    found = [
        f"{frame.f_code.co_filename}:{line}, in {frame.f_code.co_name}"
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").startswith(PREFIX)
    ]
    return found[-1] if found else None
