"""What can go wrong on the command line, and the exit code of each."""

import seeless as sl
from seeless.eval.errors import InvalidRequest, MissingEvaluator
from seeless.train.errors import BadRecords


class UnreadableImage(sl.SeelessError):
    """A picture that is missing, cannot be fetched or is no picture."""


class UnloadableModel(sl.SeelessError):
    """A model that cannot be found or loaded."""


class UnusablePlugin(sl.SeelessError):
    """A plugin file that cannot be imported."""


EXIT_CODES: tuple[tuple[type[sl.SeelessError], int], ...] = (
    (sl.UnknownStrategy, 2),
    (sl.BudgetError, 3),
    (sl.UnsupportedModel, 4),
    (UnreadableImage, 5),
    (UnloadableModel, 6),
    (UnusablePlugin, 7),
    (BadRecords, 8),
    (InvalidRequest, 2),
    (MissingEvaluator, 3),
    (sl.SeelessError, 1),
)


def exit_code(error: sl.SeelessError) -> int:
    """The exit code of an error.

    >>> exit_code(sl.BudgetError("no"))
    3
    """
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def one_line(error: BaseException) -> str:
    """The message of an error in one line; of foreign errors with several lines, the first.

    >>> one_line(OSError("not found" + chr(10) + "see https://example.org"))
    'not found'
    """
    text = str(error).strip()
    if isinstance(error, sl.SeelessError):
        return " ".join(text.split())
    if isinstance(error, KeyError) or not text:
        return f"{type(error).__name__} {text}".strip()
    return text.splitlines()[0].strip()
