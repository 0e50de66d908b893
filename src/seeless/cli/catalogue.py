"""Cards of what comes with seeless, written down, so that showing them imports no torch.

`catalogue.json` is written by `python docs/make_catalogue.py`; a test compares it with the classes.
"""

import importlib.metadata
import json
from pathlib import Path

from seeless.cli.cards import Card, card_of, cards
from seeless.registry import ENTRY_POINTS

CATALOGUE = Path(__file__).with_name("catalogue.json")


def built_in() -> dict[str, Card]:
    """The cards of the strategies and guests in this package, by name, strategies first."""
    return {data["name"]: Card.from_dict(data) for data in json.loads(CATALOGUE.read_text(encoding="utf-8"))}


def all_cards(plugged: bool) -> list[Card]:
    """The cards of all strategies and guests there are, strategies first.

    Args:
        plugged: whether plug-in files have registered more; then, and where installed packages do, classes are asked.
    """
    return cards() if plugged or _installed() else list(built_in().values())


def find_card(name: str, plugged: bool) -> Card:
    """The card of one strategy or guest.

    Raises:
        UnknownStrategy: no such name.
    """
    known = {} if plugged or _installed() else built_in()
    return known[name] if name in known else card_of(name)


def complete_name(typed: str) -> list[str]:
    """Names for the shell to go on with."""
    return [name for name in built_in() if name.startswith(typed)]


def _installed() -> bool:
    """Whether another package brings strategies."""
    return bool(importlib.metadata.entry_points(group=ENTRY_POINTS))
