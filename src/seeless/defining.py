"""From a class body to fields: what a strategy's author may have meant is done, or refused in a sentence."""

import copy
import dataclasses
import inspect
import re
from dataclasses import MISSING, Field, FrozenInstanceError, field
from functools import partial, wraps
from typing import Any, ClassVar, NoReturn, get_origin

from seeless.errors import StrategyError


def make_fields(cls: type) -> None:
    """Turn a class into a frozen dataclass. A list, dict or set as a default is copied for every instance.

    Raises:
        StrategyError: an attribute without annotation, which would be no field; a field without a default after fields
            that have one; a field that hides a method or a class attribute; an `__init__`.
    """
    own, inherited = inspect.get_annotations(cls), _annotations(cls.__mro__[1:])
    if "__init__" in vars(cls):
        raise StrategyError(
            f"{cls.__name__} has an __init__, but its arguments are its fields; write them as NAME: TYPE = DEFAULT "
            "in the body of the class, and refuse values in __post_init__"
        )
    for name in own:
        if not _is_class_variable(own[name]):
            _check_free(cls, name, inherited)
    for name, value in list(vars(cls).items()):
        if name in own:
            if not _is_class_variable(own[name]):
                _make_default_safe(cls, name, value)
        elif not (name.startswith("_") or name.isupper() or callable(value) or hasattr(value, "__get__")):
            _check_meant(cls, name, value, inherited)
    try:
        dataclasses.dataclass(frozen=True)(cls)
    except TypeError as error:
        if "non-default argument" not in str(error):
            raise
        raise StrategyError(
            f"{cls.__name__}: {error}; give it a default, or let it be given by its name: "
            "NAME: TYPE = dataclasses.field(kw_only=True)"
        ) from error
    _let_an_average_do(cls)
    setattr(cls, "__setattr__", _refuse_setting)  # noqa: B010 (a frozen dataclass has made its own)


def _let_an_average_do(cls: type) -> None:
    """Let `keep` be left out where `average` is given: then it is 1.0, all of them."""
    made = cls.__init__  # type: ignore[misc]

    @wraps(made)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if not args and kwargs.get("average") is not None and needed(cls, "keep"):
            kwargs.setdefault("keep", 1.0)
        made(self, *args, **kwargs)

    setattr(cls, "__init__", init)  # noqa: B010


def needed(cls: type, name: str) -> bool:
    """Whether a class has a field that must be given."""
    own = {each.name: each for each in dataclasses.fields(cls) if each.init}  # type: ignore[arg-type]
    return name in own and own[name].default is MISSING and own[name].default_factory is MISSING


def _refuse_setting(strategy: object, name: str, value: object) -> NoReturn:
    raise FrozenInstanceError(
        f"cannot set self.{name}: {type(strategy).__name__} never changes, one object serves all prompts at once; what "
        f"belongs to one prefill goes into ctx.memory[{name!r}], what follows from the fields is a property, and what "
        f"__post_init__ works out is set by object.__setattr__(self, {name!r}, ...)"
    )


def _make_default_safe(cls: type, name: str, value: object) -> None:
    default = value.default if isinstance(value, Field) else value
    if not isinstance(default, list | dict | set):
        return
    if isinstance(value, Field):
        value.default, value.default_factory = MISSING, partial(copy.deepcopy, default)
    else:
        setattr(cls, name, field(default_factory=partial(copy.deepcopy, default)))


def _check_free(cls: type, name: str, inherited: dict[str, Any]) -> None:
    """Refuse a field whose values would stand where the core expects a method or an attribute of the class."""
    if name in inherited and not _is_class_variable(inherited[name]):
        return
    if name in inherited or any(name in vars(base) for base in cls.__mro__[1:]):
        raise StrategyError(
            f"{name} cannot be a field of {cls.__name__}, because every strategy has something else of this name; "
            "give the field another one"
        )


def _check_meant(cls: type, name: str, value: object, inherited: dict[str, Any]) -> None:
    if name in inherited and _is_class_variable(inherited[name]):
        return
    if name in inherited:
        kind = inherited[name] if isinstance(inherited[name], str) else inspect.formatannotation(inherited[name])
        raise StrategyError(
            f"{name} = {value!r} in {cls.__name__} changes no default, because it has no annotation; write "
            f"{name}: {kind} = {value!r}"
        )
    if any(name in vars(base) for base in cls.__mro__[1:]):
        return
    kind = type(value).__name__
    raise StrategyError(
        f"{name} = {value!r} in {cls.__name__} is no field, because it has no annotation; write {name}: {kind} = "
        f"{value!r}, or {name}: ClassVar[{kind}] = {value!r} if nobody is to set it"
    )


def _annotations(bases: tuple[type, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(bases):
        found |= inspect.get_annotations(base)
    return found


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return re.match(r"(\w+\.)?ClassVar\b", annotation) is not None
    return annotation is ClassVar or get_origin(annotation) is ClassVar
