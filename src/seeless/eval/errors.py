"""What can go wrong with an evaluation."""

from seeless.errors import MissingExtra, SeelessError


class InvalidRequest(SeelessError, ValueError):
    """Something was asked for that cannot be; the message says what can."""

    exit_code = 2


class MissingEvaluator(MissingExtra):
    """lmms-eval is not installed here."""


class FailedEvaluation(SeelessError, RuntimeError):
    """An evaluation ended without all its results; the message has the reason and where the log is."""
