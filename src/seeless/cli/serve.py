"""`seeless serve`: vLLM's server with fewer visual tokens."""

import os
import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

import seeless as sl
from seeless.cli.catalogue import complete_name
from seeless.cli.console import say
from seeless.cli.flags import as_flag, read_flags
from seeless.named.checkpoints import load_config, resolve_name
from seeless.named.knobs import build_strategies
from seeless.named.strategies import Choice, choose


def serve(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hub id or folder.")],
    strategy: Annotated[
        str,
        typer.Option(metavar="NAME", help="A strategy, with its fields as flags.", autocompletion=complete_name),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, print the command, and start nothing.")] = False,
) -> None:
    """Serve a model by vLLM with fewer visual tokens; all flags that are no field of the strategy are vLLM's.

    seeless serve Qwen/Qwen2.5-VL-7B-Instruct --strategy divprune --keep 0.25 --port 8000 --max-model-len 8192

    Requests may set budgets of their own where vLLM's --trust-request-mm-kwargs allows them to. docs/serve.md has the
    rest.
    """
    from seeless.integrations.vllm.launching import check_installed, check_served, server_command

    choice = choose(strategy)
    fields, flags = _apart(context.args, choice)
    built = build_strategies([strategy], read_flags(fields), as_flag)[0]
    name = resolve_name(model)
    check_served(load_config(name).model_type, built)
    assert isinstance(built, sl.Strategy)
    command = server_command(name, built, flags)
    if dry_run:
        say(shlex.join(command))
        return
    check_installed()
    os.execvp(command[0], command)


def _apart(arguments: Sequence[str], choice: Choice) -> tuple[list[str], list[str]]:
    """Flags of the strategy's fields, and vLLM's."""
    names = {knob.name for knob in choice.knobs()}
    own: list[str] = []
    others: list[str] = []
    into = others
    for word in arguments:
        if word.startswith("--"):
            name = word[2:].partition("=")[0].replace("-", "_").rpartition(".")[2]
            into = own if name.removeprefix("no_") in names else others
        into.append(word)
    return own, others
