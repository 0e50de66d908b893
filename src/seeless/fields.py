"""What the fields of a strategy take, and whether a value is one of these."""

import types
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from seeless.errors import BudgetError

OFF_LIMITS = "a value that cannot be given on the command line"
WRITTEN = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "none"}
IN_PYTHON = {**WRITTEN, bool: "True or False", type(None): "None", list: "list"}


@cache
def field_types(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass, read.

    Raises:
        BudgetError: one names something that is not there when the program runs.
    """
    try:
        return get_type_hints(cls)
    except NameError as error:
        raise BudgetError(
            f"the annotations of {cls.__name__} cannot be read: {error}; import it where the class is, outside of "
            "`if TYPE_CHECKING`"
        ) from error


def members_of(annotation: Any) -> list[Any]:
    """The members of a union, nested ones too; another annotation alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        members: Iterable[Any] = get_args(annotation)
        return [choice for member in members for choice in members_of(member)]
    return [annotation]


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of an annotated type; always, where that is none of bool, int, float, str, None, `Literal`
    and lists of these.

    >>> fits(2, float), fits(True, int), fits("False", bool), fits([1, "x"], list[int] | None)
    (True, False, False, False)
    """
    return any(_fits(value, member) for member in members_of(annotation))


def takes(annotation: Any, words: Mapping[type, str] = WRITTEN) -> str:
    """What a field takes, in words; unless told those of the command line.

    >>> takes(float | int | list[int] | None)
    'number, whole number, comma-separated list or none'
    """
    parts: list[str] = []
    for member in members_of(annotation):
        if get_origin(member) is Literal:
            parts += map(str, get_args(member))
        elif get_origin(member) is list:
            parts.append(words.get(list, "comma-separated list"))
        else:
            parts.append(words.get(member, OFF_LIMITS))
    parts = list(dict.fromkeys(parts))
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"


def check_value(name: str, value: Any, annotation: Any) -> None:
    """Raise `BudgetError` unless a value fits its field."""
    if fits(value, annotation):
        return
    members = [member for member in members_of(annotation) if member is not type(None)]
    if all(get_origin(member) is Literal for member in members):
        named = [str(choice) for member in members for choice in get_args(member)]
        raise BudgetError(f"{name}={value!r} is not possible; choose one of {', '.join(named)}")
    raise BudgetError(f"{name}={value!r} is not possible; it takes {takes(annotation, IN_PYTHON)}")


def _fits(value: Any, member: Any) -> bool:
    if get_origin(member) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(member))
    if get_origin(member) is list:
        return isinstance(value, list) and all(fits(item, get_args(member)[0]) for item in value)
    if isinstance(value, bool) and member in (int, float):
        return False
    if member is float:
        return isinstance(value, int | float)
    return isinstance(value, member) if member in (int, bool, str, type(None)) else True
