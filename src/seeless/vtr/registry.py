"""Names of guest strategies."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from seeless.errors import BudgetError, brief
from seeless.registry import check_free
from seeless.vtr.config import VTRConfig

C = TypeVar("C", bound=type)

VTR_REGISTRY: dict[str, type] = {}


def register_strategy(name: str) -> Callable[[C], C]:
    """Make a guest class known under `name`, on every backbone. A name that is taken is overwritten.

    The class has `compute_scores` and, best by inheriting from `PruningStrategy` or `VTRStrategy`, `select_tokens`.
    """

    def decorate(cls: C) -> C:
        if not callable(getattr(cls, "compute_scores", None)):
            raise BudgetError(f"{cls.__name__} has no compute_scores(attention, image_token_range, config, **ctx)")
        check_free(name)
        VTR_REGISTRY[name] = cls
        return cls

    return decorate


def guest_class(name: str) -> type:
    """The class registered under `name`.

    Raises:
        BudgetError (a ValueError): there is none; the message lists the names.
    """
    if name not in VTR_REGISTRY:
        raise BudgetError(
            f"no strategy is registered as {brief(name)}; there are {', '.join(sorted(VTR_REGISTRY))}. One of your "
            "own is known once the file that registers it is imported"
        )
    return VTR_REGISTRY[name]


def get_strategy(name: str) -> Any:
    """A new instance of the class registered under `name`.

    Raises:
        BudgetError (a ValueError): there is none; the message lists the names.

    >>> type(get_strategy("priortr")).__name__
    'PriorTRStrategy'
    """
    return guest_class(name)()


def config_class(name: str) -> type[VTRConfig]:
    """The configuration class of a registered strategy.

    That is its attribute `config_class`, else the only subclass of `VTRConfig` in the module that defines the strategy,
    else `VTRConfig` itself.
    """
    cls = guest_class(name)
    if (own := getattr(cls, "config_class", None)) is not None:
        return own
    module = sys.modules.get(cls.__module__)
    found = {
        value
        for value in (vars(module).values() if module is not None else ())
        if isinstance(value, type) and issubclass(value, VTRConfig) and value.__module__ == cls.__module__
    }
    return found.pop() if len(found) == 1 else VTRConfig
