"""`seeless info`: the card of a strategy, or what seeless knows about a model."""

from typing import Annotated, Any

import typer

import seeless as sl
from seeless.cli.cards import Card
from seeless.cli.catalogue import complete_name, find_card
from seeless.cli.console import print_json, print_table, say
from seeless.cli.facts import facts_of
from seeless.cli.options import Plugins
from seeless.errors import one_line
from seeless.named.checkpoints import READER, config_of, embedded_path, names_a_model, resolve_name
from seeless.named.knobs import DEFAULT_KEEP
from seeless.named.plugins import load_plugins
from seeless.named.strategies import choose, guest_names


def info(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL_OR_STRATEGY]",
            help="Hub id, folder, model_type, reader, tiny (embedded), or strategy.",
            autocompletion=complete_name,
        ),
    ] = None,
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """A strategy's card, or what a model looks like and which strategies work on it (from its config, no weights).

    Without a name: the embedded model reader.
    """
    load_plugins(plugin or [])
    if name is None:
        _show_model(READER, as_json)
        return
    try:
        card = find_card(name, plugged=bool(plugin))
    except sl.UnknownStrategy:
        if not names_a_model(name):
            raise
        _show_model(name, as_json)
    else:
        _show_strategy(card, as_json)


def _show_strategy(card: Card, as_json: bool) -> None:
    if as_json:
        print_json({**card.to_dict(), "facts": facts_of(card.doc)})
        return
    guest = " · guest of seeless.vtr, run as PriorTR's framework runs it" if card.guest else ""
    say(f"{card.name}{guest} · acts at the {card.stage} stage" + (f" · {card.paper}" if card.paper else ""))
    say(f"\n{card.doc}\n")
    rows = [
        [field.flag, "required" if field.required else str(field.default), field.takes, field.help]
        for field in card.fields
    ]
    print_table(["flag", "default", "takes", "meaning"], rows)


def _show_model(model: str, as_json: bool) -> None:
    from seeless import models

    name = resolve_name(model)
    skeleton = models.skeleton(config_of(name))
    description = models.describe(skeleton)
    guests = {guest: _reason_against(skeleton, guest) for guest in guest_names()}
    served = [key for key, reason in description.strategies.items() if reason is None and _is_served(skeleton, key)]
    if as_json:
        print_json({"model": name, **description.to_dict(), "guests": guests, "served": served})
        return
    tokens = "as many as the picture's size asks for"
    if description.visual_tokens is not None:
        tokens = f"{description.visual_tokens} per {description.per}"
    heads = f"{description.heads} heads, {description.kv_heads} of keys and values"
    rows = [
        ["family", f"{description.family} ({description.model_type})"],
        ["decoder", f"{description.decoder}, {description.layers} layers, hidden size {description.hidden}, {heads}"],
        ["tower", f"{description.tower}, {description.tower_layers or 'unread'} layers"],
        ["class token", "yes" if description.class_token else "no"],
        ["vision signal", description.vision_signal],
        ["videos", "yes" if description.videos else "no, only as a row of images"],
        ["visual tokens", tokens],
        ["anchor", f"token {description.anchor} after the image"],
        ["served by vLLM", f"with {', '.join(served)}" if served else "no"],
        *([["note", description.note]] if description.note else []),
    ]
    say(name if embedded_path(model) is None else f"the embedded model {model} ({name})")
    print_table(["", ""], rows)
    print_table(["strategy", ""], [[key, reason or "works"] for key, reason in description.strategies.items()])
    print_table(["guest", ""], [[key, reason or "works"] for key, reason in guests.items()])


def _is_served(model: Any, name: str) -> bool:
    from seeless.integrations.vllm.launching import check_served

    try:
        check_served(model.config.model_type, choose(name).build({"keep": DEFAULT_KEEP}))
    except sl.SeelessError:
        return False
    return True


def _reason_against(model: Any, guest: str) -> str | None:
    from seeless import models

    try:
        models.check_strategy(model, choose(guest).build({}))
    except sl.SeelessError as error:
        return one_line(error)
    return None
