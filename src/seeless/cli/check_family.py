"""`seeless check-family`: whether what a family says of its models is true."""

from typing import Annotated

import typer

import seeless as sl
from seeless.cli.console import print_json, print_table, say
from seeless.cli.options import Plugins
from seeless.named.checkpoints import config_of, resolve_name
from seeless.named.plugins import load_plugins


def check_family(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_CONFIG", help="Hub id, folder, config.json or model_type.")],
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Check a family of models on a tiny random one, made from a config, against the same model with masked tokens.

    Nothing but the config is read. Cuts at the entry and between layers, of images and videos, prompts and answers,
    unequal rows of a batch; of merging inside the tower only that it runs. Ends with 1 if anything fails.
    """
    load_plugins(plugin or [])
    from seeless.checking import family as checking

    config = config_of(resolve_name(model))
    outcomes = checking.check_family(config, checking.class_of(config))
    if as_json:
        print_json({"model_type": config.model_type, "checks": [vars(outcome) for outcome in outcomes]})
    else:
        say(f"{config.model_type}, a tiny random model")
        print_table(["", "check", ""], [[outcome.state, outcome.what, outcome.detail] for outcome in outcomes])
    states = [outcome.state for outcome in outcomes]
    if failed := states.count("fails"):
        raise sl.SeelessError(
            f"{failed} of {len(states)} checks fail, so what the family says of {config.model_type} is not true; "
            "docs/add-a-model.md says what each message means"
        )
    if "holds" not in states:
        raise sl.UnsupportedModel(f"nothing works on {config.model_type}: {outcomes[0].detail}")
