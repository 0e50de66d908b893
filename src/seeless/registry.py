"""Names of strategies: registered by decorator, found by scanning `seeless.strategies` and entry points."""

import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from seeless.errors import BudgetError, StrategyError, UnknownStrategy, brief, did_you_mean, with_kind

if TYPE_CHECKING:
    from seeless.strategy import Strategy

S = TypeVar("S", bound="type[Strategy]")

ENTRY_POINTS = "seeless.strategies"  # the group in which installed packages name modules that register strategies

_strategies: "dict[str, type[Strategy]]" = {}


RUNGS = ("score", "select", "reduce")
RESERVED = {"all": "every strategy", "none": "the untouched model"}  # what these names stand for on the command line


def register(name: str) -> Callable[[S], S]:
    """Make a strategy class known under `name`.

    Raises:
        StrategyError: no name is given, what is decorated is no strategy, or it defines nothing that decides.
        ValueError: the name is not lower case with underscores, stands for something else, or another class has it.
    """
    if not isinstance(name, str):
        raise StrategyError(f'sl.register needs a name: write @sl.register("my_method") above {_called(name)}')

    def decorate(cls: S) -> S:
        _check_class(name, cls)
        if not name.isidentifier() or name != name.lower():
            raise ValueError(f"{name!r} is no name for a strategy; use lower case letters, digits and underscores")
        check_free(name)
        if cls.__module__.partition(".")[0] != __package__:
            _import_own()  # whose names are taken
        known = _strategies.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            owner, module = f"{known.__module__}.{known.__qualname__}", sys.modules.get(known.__module__)
            file = getattr(module, "__file__", None)
            raise ValueError(f"the name {name!r} already belongs to {owner}" + (f" in {file}" if file else ""))
        cls.name = name
        _strategies[name] = cls
        return cls

    return decorate


def check_free(name: str) -> None:
    """Raise `ValueError` for a name that stands for something else wherever strategies are named."""
    if name in RESERVED:
        raise ValueError(f"the name {name!r} stands for {RESERVED[name]}; choose another")


def _check_class(name: str, cls: Any) -> None:
    from seeless.patches import PatchStrategy
    from seeless.strategy import Strategy, TowerStrategy

    if not (isinstance(cls, type) and issubclass(cls, Strategy)):
        guest = isinstance(cls, type) and hasattr(cls, "compute_scores")
        raise StrategyError(
            f"{_called(cls)} is no strategy, so it cannot be registered as {name!r}; "
            + ("register it by seeless.vtr.register_strategy" if guest else "write class MyMethod(sl.LayerStrategy)")
        )
    base, rungs = next(
        (
            (base, (rung,))
            for base, rung in ((TowerStrategy, "merge"), (PatchStrategy, "leave"))
            if issubclass(cls, base)
        ),
        (Strategy, RUNGS),
    )
    if all(getattr(cls, rung) is getattr(base, rung) for rung in (*rungs, "parts")):
        own = [method for method, value in vars(cls).items() if callable(value) and not method.startswith("__")]
        near = next((f"; {hint}" for method in own if (hint := did_you_mean(method, rungs))), "")
        raise StrategyError(f"{cls.__name__} defines none of {', '.join(rungs)}, so it cannot decide{near}")
    if not hasattr(cls, "stage"):
        raise StrategyError(
            f"{cls.__name__} does not say where it acts; derive it from sl.LayerStrategy (between decoder layers) or "
            "sl.EntryStrategy (before them) in place of sl.Strategy"
        )


def _called(given: Any) -> str:
    return getattr(given, "__name__", repr(given))


@cache
def _import_own() -> None:
    package = importlib.import_module("seeless.strategies")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


@cache
def _scan() -> None:
    _import_own()
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:  # an installed package is foreign code: whatever it raises is its error
            package = f" of the package {entry.dist.name}" if entry.dist is not None else ""
            raise StrategyError(
                f"the entry point {entry.name} = {entry.value}{package} cannot be loaded, so no strategy can be looked "
                f"up: {with_kind(error)}; mend or uninstall it"
            ) from error


def available() -> list[str]:
    """Names of all strategies, sorted.

    >>> "fastv" in available()
    True
    """
    _scan()
    return sorted(_strategies)


def strategy_class(name: str) -> "type[Strategy]":
    """The class registered under `name`.

    Raises:
        UnknownStrategy: there is none; the message has near matches.
    """
    _scan()
    if not isinstance(name, str):
        raise UnknownStrategy(f"{name!r} is no name of a strategy; there are {', '.join(available())}")
    if name not in _strategies:
        hint = did_you_mean(name.lower(), _strategies) or f"there are {', '.join(available())}"
        raise UnknownStrategy(f"no strategy is called {brief(name)}; {hint}")
    return _strategies[name]


def get(name: str, **knobs: Any) -> "Strategy":
    """A strategy by name, with its fields.

    Raises:
        UnknownStrategy: no such name.
        BudgetError: a field it does not have, or a value it cannot take.

    >>> fastv = get("fastv", keep=0.25)
    >>> fastv.keep, fastv.layer
    (0.25, 2)
    """
    cls = strategy_class(name)
    known = [knob.name for knob in fields(cls) if knob.init]
    for knob in knobs:
        if knob not in known:
            owners = [n for n in available() if knob in {f.name for f in fields(_strategies[n]) if f.init}]
            hint = f" ({knob} belongs to {', '.join(owners)})" if owners else ""
            raise BudgetError(f"{name} has no field {knob!r}{hint}; its fields are {', '.join(known)}")
    try:
        return cls(**knobs)
    except TypeError as error:
        raise BudgetError(f"{name}: {error}; its fields are {', '.join(known)}") from error


def from_dict(data: Mapping[str, Any]) -> "Strategy":
    """The inverse of `Strategy.to_dict`.

    >>> strategy = get("fastv", keep=0.25)
    >>> from_dict(strategy.to_dict()) == strategy
    True
    """
    if not isinstance(data, Mapping):
        raise BudgetError(f"{data!r} is no dict; from_dict takes what Strategy.to_dict returned")
    knobs = dict(data)
    if "strategy" not in knobs:
        raise BudgetError(f"no 'strategy' among {sorted(knobs)}; from_dict takes what Strategy.to_dict returned")
    return get(knobs.pop("strategy"), **knobs)
