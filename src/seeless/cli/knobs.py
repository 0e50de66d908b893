"""Flags on the command line from the fields of strategies, and back."""

import types
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import seeless as sl
from seeless.registry import strategy_class

DEFAULT_KEEP = 0.25
OFF_LIMITS = "a value that cannot be given on the command line"
Flags = dict[str, str | None]


def read_flags(arguments: list[str]) -> Flags:
    """Names and values of flags; None for a flag without a value.

    >>> read_flags(["--head-aggregation", "max", "--layer=8,16", "--no-newlines"])
    {'head_aggregation': 'max', 'layer': '8,16', 'no_newlines': None}
    """
    flags: Flags = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise sl.BudgetError(
                f"{word!r} belongs to no flag; a picture is --image FILE, a strategy's field --field value"
            )
        name, equals, value = word[2:].partition("=")
        follows = bool(rest) and not rest[0].startswith("--")
        flags[name.replace("-", "_")] = value if equals else rest.pop(0) if follows else None
    return flags


def build_strategies(names: list[str], flags: Flags) -> list[sl.Strategy]:
    """The strategies, each with those flags that are its fields.

    A flag is the name of a field, or `strategy.field` for one strategy only. Where no budget is given and the
    strategy has none of its own, `keep=0.25`.

    Raises:
        UnknownStrategy: no such name.
        BudgetError: a flag that none of them has, or a value that a field cannot take.
    """
    classes = [strategy_class(name) for name in names]
    known = {spelling for cls in classes for knob in knobs_of(cls) for spelling in _spellings(cls, knob)}
    for flag in flags:
        if flag not in known:
            _refuse(flag, names)
    return [_build(cls, flags) for cls in classes]


def parse_value(text: str, annotation: Any) -> Any:
    """Text as a value of an annotated type: whole numbers before floats, commas for lists.

    Raises:
        ValueError: the text is none.

    >>> parse_value("64", float | int), parse_value("1.0", float | int), parse_value("8,16", int | list[int] | None)
    (64, 1.0, [8, 16])
    """
    choices = _choices(annotation)
    if type(None) in choices and text.lower() == "none":
        return None
    lists = [choice for choice in choices if get_origin(choice) is list]
    if lists and ("," in text or len(lists) == len(choices)):
        return [parse_value(item.strip(), get_args(lists[0])[0]) for item in text.split(",") if item.strip()]
    for choice in sorted(choices, key=_order):
        if get_origin(choice) is Literal:
            for value in get_args(choice):
                if str(value) == text:
                    return value
        elif choice is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        elif choice in (int, float, str):
            try:
                return choice(text)
            except ValueError:
                continue
    raise ValueError(f"it takes {takes(annotation)}")


def takes(annotation: Any) -> str:
    """What a field takes, in words.

    >>> takes(float | int | list[int] | None)
    'number, whole number, comma-separated list or none'
    """
    words = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "none"}
    parts: list[str] = []
    for choice in _choices(annotation):
        if get_origin(choice) is Literal:
            parts += map(str, get_args(choice))
        elif get_origin(choice) is list:
            parts.append("comma-separated list")
        else:
            parts.append(words.get(choice, OFF_LIMITS))
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"


def knobs_of(cls: type[sl.Strategy]) -> list[Field]:
    """The fields of a strategy that can be set."""
    return [knob for knob in fields(cls) if knob.init]


def default_of(knob: Field) -> Any:
    """The default of a field; `MISSING` if it has none."""
    return knob.default_factory() if knob.default_factory is not MISSING else knob.default


def _build(cls: type[sl.Strategy], flags: Flags) -> sl.Strategy:
    hints = get_type_hints(cls)
    values = {}
    for knob in knobs_of(cls):
        for spelling in _spellings(cls, knob):
            if spelling in flags:
                values[knob.name] = _value(spelling, flags[spelling], hints[knob.name])
    for knob in [knob for knob in knobs_of(cls) if default_of(knob) is MISSING]:
        if knob.name == "keep":
            values.setdefault("keep", DEFAULT_KEEP)
        elif OFF_LIMITS in takes(hints[knob.name]):
            raise sl.BudgetError(
                f"{cls.name} needs {knob.name}, {OFF_LIMITS}; write it in Python: "
                f"sl.apply(model, sl.{cls.__name__}({knob.name}=...))"
            )
    return sl.get(cls.name, **values)


def _spellings(cls: type[sl.Strategy], knob: Field) -> list[str]:
    """All names of a flag, the ones that win last."""
    names = [knob.name, f"{cls.name}.{knob.name}"]
    if get_type_hints(cls)[knob.name] is bool:
        names = [names[0], f"no_{knob.name}", names[1], f"{cls.name}.no_{knob.name}"]
    return names


def _value(spelling: str, text: str | None, annotation: Any) -> Any:
    flag = "--" + spelling.replace("_", "-")
    if annotation is bool and text is None:
        return not spelling.split(".")[-1].startswith("no_")
    if text is None:
        raise sl.BudgetError(f"{flag} needs a value: {takes(annotation)}")
    try:
        return parse_value(text, annotation)
    except ValueError as error:
        raise sl.BudgetError(f"{flag} {text} is not possible; {error}") from error


def _refuse(flag: str, names: list[str]) -> None:
    strategy, _, knob = flag.rpartition(".")
    if strategy and strategy not in names:
        raise sl.BudgetError(f"--{flag} is for {strategy!r}, but what runs is {', '.join(names)}")
    if strategy or len(names) == 1:
        sl.get(strategy or names[0], **{knob: None})
    owners = [name for name in sl.available() if knob in {f.name for f in knobs_of(strategy_class(name))}]
    hint = f" ({knob} belongs to {', '.join(owners)})" if owners else ""
    raise sl.BudgetError(f"none of {', '.join(names)} has a field {knob!r}{hint}")


def _choices(annotation: Any) -> list[Any]:
    """The members of a union, nested ones too; another annotation alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        members: Iterable[Any] = get_args(annotation)
        return [choice for member in members for choice in _choices(member)]
    return [annotation]


def _order(choice: Any) -> int:
    return {bool: 0, int: 1, float: 2, str: 4}.get(choice, 3 if get_origin(choice) is not Literal else 0)
