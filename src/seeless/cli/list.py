"""`seeless list`: all strategies."""

from typing import Annotated

import typer

import seeless as sl
from seeless.cli.cards import Card, card_of
from seeless.cli.console import print_json, print_table, say
from seeless.cli.options import Plugins
from seeless.named.plugins import load_plugins
from seeless.named.strategies import guest_names, shadowed


def list_strategies(
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list on stdout.")] = False,
) -> None:
    """All strategies with their fields, defaults and papers, and the guests of seeless.vtr."""
    load_plugins(plugin or [])
    own, guests = (
        [card_of(name) for name in names]
        for names in ([n for n in sl.available() if n not in shadowed()], guest_names())
    )
    if as_json:
        print_json([card.to_dict() for card in own + guests])
        return
    rows = [[card.name, card.stage, _fields(card), _summary(card), card.paper] for card in own]
    print_table(["name", "stage", "fields", "what stays", "paper"], rows)
    say("\nEvery strategy also has the fields that `seeless info NAME` lists; each is a flag of `seeless run`.")
    say("\nGuests of seeless.vtr, run as PriorTR's framework runs them; their flags: `seeless info NAME`.\n")
    rows = [[card.name, card.stage, _fields(card), _summary(card)] for card in guests]
    print_table(["name", "stage", "own fields", "what it is"], rows)


def _summary(card: Card) -> str:
    return card.doc.partition("\n")[0]


def _fields(card: Card) -> str:
    own = [field for field in card.fields if not field.common]
    return ", ".join(field.name if field.required else f"{field.name}={field.default}" for field in own)
