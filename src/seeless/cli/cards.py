"""What a strategy says about itself: its docstring, its paper and its fields."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import seeless as sl
from seeless.fields import field_types, takes
from seeless.named.knobs import default_of
from seeless.named.strategies import Choice, choose, guest_names, shadowed


@dataclass(frozen=True)
class FieldCard:
    """One field: its name, what it takes, its default (None if `required`), what it means, and whether every strategy
    has it with this default (`common`)."""

    name: str
    takes: str
    required: bool
    default: Any
    help: str
    common: bool

    @property
    def flag(self) -> str:
        """How it is spelled on the command line."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True)
class Card:
    """One strategy or `guest`; `doc` is its docstring without the section on arguments, `stage` where it acts."""

    name: str
    guest: bool
    stage: str
    doc: str
    paper: str
    fields: list[FieldCard]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Card":
        """The inverse of `to_dict`."""
        return cls(**{**data, "fields": [FieldCard(**field) for field in data["fields"]]})

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return self.doc.partition("\n")[0]


def cards() -> list[Card]:
    """Cards of all strategies, and after them of all guests, by asking their classes."""
    own = [name for name in sl.available() if name not in shadowed()]
    return [card_of(name) for name in [*own, *guest_names()]]


def card_of(name: str) -> Card:
    """The card of a strategy or guest, by the name `seeless.named.strategies.choose` takes.

    >>> card_of("fastv").paper
    'arXiv 2403.06764'

    Raises:
        UnknownStrategy: no such name.
    """
    from seeless.registry import strategy_class
    from seeless.vtr.registry import guest_class

    choice = choose(name)
    if choice.guest is None:
        cls = strategy_class(name)
        stage, doc, paper = cls.stage.value, inspect.getdoc(cls) or "", cls.paper
    else:
        guest = guest_class(choice.guest)  # its base classes explain the contract, not the method: no inherited text
        stage = "entry" if getattr(guest, "before_decoder", False) else "layer"
        doc, paper = inspect.cleandoc(guest.__doc__ or ""), getattr(guest, "paper", "")
    return Card(name, choice.guest is not None, stage, doc.split("\nArgs:\n")[0].strip(), paper, _field_cards(choice))


def _field_cards(choice: Choice) -> list[FieldCard]:
    from seeless.vtr import VTRConfig

    hints, meanings = field_types(choice.flags_of), _meanings(choice.flags_of)
    shared = {knob.name: default_of(knob) for knob in fields(sl.Strategy if choice.guest is None else VTRConfig)}
    found = []
    for knob in choice.knobs():
        default = default_of(knob)
        required = default is MISSING
        common = knob.name in shared and shared[knob.name] == default and knob.name != "keep"
        value = None if required else default
        found.append(
            FieldCard(knob.name, takes(hints[knob.name]), required, value, meanings.get(knob.name, ""), common)
        )
    return found


def _meanings(cls: type) -> dict[str, str]:
    """What the `Args:` sections of a class and its bases say about each field; the class has the last word."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("\nArgs:\n")[2].partition("\n\n")[0]
        for entry in re.split(r"\n(?= {4}\w)", "\n" + section):
            names, colon, text = entry.strip().partition(":")
            if colon:
                found.update(dict.fromkeys(re.split(r",\s*", names), " ".join(text.split())))
    return found
