"""What can go wrong on the command line, and the exit code of each."""

import seeless as sl
from seeless.eval.errors import InvalidRequest, MissingEvaluator
from seeless.named.errors import UnloadableModel, UnusablePlugin
from seeless.pixels import UnreadableImage
from seeless.train.errors import BadRecords

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
