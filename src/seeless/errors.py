"""Every error seeless raises on purpose. Each message names what was given, what is possible and what to do next."""


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
