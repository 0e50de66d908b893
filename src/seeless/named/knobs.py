"""Strategies from their names and the values of their fields, written as text."""

import math
from collections.abc import Callable
from dataclasses import MISSING, Field
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import seeless as sl
from seeless.errors import did_you_mean, shortened
from seeless.fields import OFF_LIMITS, field_types, members_of, takes
from seeless.named.strategies import Choice, choose, guest_names

if TYPE_CHECKING:
    from seeless.strategy import Recipe

DEFAULT_KEEP = 0.25
Values = dict[str, str | None]
Spell = Callable[[str, str], str]


def assignment(name: str, value: str = "") -> str:
    """How a field is written where arguments are: `keep=0.25`.

    >>> assignment("keep", "0.25"), assignment("keep")
    ('keep=0.25', 'keep')
    """
    return f"{name}={value}" if value else name


def build_strategies(names: list[str], values: Values, spell: Spell = assignment) -> "list[sl.Strategy | Recipe]":
    """The strategies, each with those values that are for its fields; a guest as its configuration.

    A value's name is that of a field, or `strategy.field` for one strategy only. Where no budget is given and a
    strategy of seeless' own has none, `keep=0.25`; a guest has the default of its framework.

    Args:
        values: names and texts; None for a flag without a value.
        spell: how errors write a name, or a name with its value.

    Raises:
        UnknownStrategy: no such name.
        BudgetError: a name that none of them has, or a value that a field cannot take.
    """
    choices = [choose(name) for name in names]
    known = {spelling for choice in choices for knob in choice.knobs() for spelling in _spellings(choice, knob)}
    for name in values:
        if name not in known:
            _refuse(name, choices, spell)
    return [_build(choice, values, spell) for choice in choices]


def parse_value(text: str, annotation: Any) -> Any:
    """Text as a value of an annotated type: whole numbers before floats, commas for lists, which may have brackets.

    Raises:
        ValueError: the text is none.

    >>> parse_value("64", float | int), parse_value("1.0", float | int), parse_value("8,16", int | list[int] | None)
    (64, 1.0, [8, 16])
    >>> parse_value("[8, 16]", int | list[int]), parse_value("[8]", int | list[int])
    ([8, 16], [8])
    """
    choices = members_of(annotation)
    named = [value for choice in choices if get_origin(choice) is Literal for value in get_args(choice)]
    if text in map(str, named):  # also where "none" is a name
        return next(value for value in named if str(value) == text)
    if type(None) in choices and text.lower() == "none":
        return None
    lists = [choice for choice in choices if get_origin(choice) is list]
    alone = all(choice in lists or choice is type(None) for choice in choices)
    bracketed = bool(lists) and text.startswith("[") and text.endswith("]")
    if bracketed:
        text = text[1:-1]
    if lists and ("," in text or alone or bracketed):
        return [parse_value(item.strip(), get_args(lists[0])[0]) for item in text.split(",") if item.strip()]
    for choice in sorted(choices, key=_order):
        if choice is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        elif choice in (int, float, str):
            try:
                value = choice(text)
            except ValueError:
                continue
            if choice is not float or math.isfinite(value):
                return value
    raise ValueError(f"it takes {takes(annotation)}")


def default_of(knob: Field) -> Any:
    """The default of a field; `MISSING` if it has none."""
    return knob.default_factory() if knob.default_factory is not MISSING else knob.default


def _build(choice: Choice, texts: Values, spell: Spell) -> "sl.Strategy | Recipe":
    hints = field_types(choice.flags_of)
    values = {}
    for knob in choice.knobs():
        for spelling in _spellings(choice, knob):
            if spelling in texts:
                values[knob.name] = _value(spelling, texts[spelling], hints[knob.name], spell)
    missing = [knob for knob in choice.knobs() if choice.guest is None and default_of(knob) is MISSING]
    for knob in missing:
        if knob.name == "keep":
            if values.get("average") is None:
                values.setdefault("keep", DEFAULT_KEEP)
        elif OFF_LIMITS in takes(hints[knob.name]):
            raise sl.BudgetError(
                f"{choice.name} needs {knob.name}, {OFF_LIMITS}; write it in Python: "
                f"sl.apply(model, sl.{choice.flags_of.__name__}({knob.name}=...))"
            )
    return choice.build(values)


def _spellings(choice: Choice, knob: Field) -> list[str]:
    """All names of a flag, the ones that win last."""
    names = [knob.name, f"{choice.prefix}.{knob.name}"]
    if field_types(choice.flags_of)[knob.name] is bool:
        names = [names[0], f"no_{knob.name}", names[1], f"{choice.prefix}.no_{knob.name}"]
    return names


def _value(spelling: str, text: str | None, annotation: Any, spell: Spell) -> Any:
    if annotation is bool and text is None:
        return not spelling.split(".")[-1].startswith("no_")
    if text is None:
        raise sl.BudgetError(f"{spell(spelling, '')} needs a value: {takes(annotation)}")
    try:
        return parse_value(text, annotation)
    except ValueError as error:
        raise sl.BudgetError(f"{spell(spelling, shortened(text))} is not possible; {error}") from error


def _refuse(flag: str, choices: list[Choice], spell: Spell) -> None:
    prefix, _, knob = flag.rpartition(".")
    meant = [choice for choice in choices if prefix in ("", choice.prefix)]
    names = ", ".join(choice.name for choice in choices)
    if not meant:
        raise sl.BudgetError(f"{spell(flag, '')} is for {prefix!r}, but what runs is {names}")
    message = f"{meant[0].name} has no field {knob!r}" if len(meant) == 1 else f"none of {names} has a field {knob!r}"
    everyone = map(choose, [*sl.available(), *guest_names()])
    if owners := [choice.name for choice in everyone if knob in _names(choice)]:
        message += f" ({knob} belongs to {', '.join(owners)})"
    known = list(dict.fromkeys(name for choice in meant for name in _names(choice)))
    if near := did_you_mean(knob, known):
        message += f"; {near}"
    elif len(meant) == 1:
        message += f"; its fields are {', '.join(known)}"
    raise sl.BudgetError(message)


def _names(choice: Choice) -> list[str]:
    return [knob.name for knob in choice.knobs()]


def _order(choice: Any) -> int:
    return {bool: 0, int: 1, float: 2, str: 4}.get(choice, 3 if get_origin(choice) is not Literal else 0)
