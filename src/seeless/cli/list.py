"""`seeless list`: all strategies."""

from typing import Annotated

import typer

from seeless.cli.cards import Card
from seeless.cli.catalogue import all_cards
from seeless.cli.console import print_json, print_table, say
from seeless.cli.options import Plugins
from seeless.named.plugins import load_plugins


def list_strategies(
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list on stdout.")] = False,
) -> None:
    """All strategies with their fields, defaults and papers, and the guests of seeless.vtr."""
    load_plugins(plugin or [])
    cards = all_cards(plugged=bool(plugin))
    if as_json:
        print_json([card.to_dict() for card in cards])
        return
    rows = [[card.name, card.stage, _fields(card), card.summary, card.paper] for card in cards if not card.guest]
    print_table(["name", "stage", "fields", "what stays", "paper"], rows)
    say("\nEvery strategy also has the fields that `seeless info NAME` lists; each is a flag of `seeless run`.")
    say("\nGuests of seeless.vtr, run as PriorTR's framework runs them; their flags: `seeless info NAME`.\n")
    rows = [[card.name, card.stage, _fields(card), card.summary] for card in cards if card.guest]
    print_table(["name", "stage", "own fields", "what it is"], rows)


def _fields(card: Card) -> str:
    own = [field for field in card.fields if not field.common]
    return ", ".join(field.name if field.required else f"{field.name}={field.default}" for field in own)
