"""The command that starts vLLM's server with a strategy, checked before anything is started."""

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Sequence
from typing import Any

from seeless.errors import BudgetError, MissingExtra, brief
from seeless.families import family_of
from seeless.integrations.vllm.errors import NotServed
from seeless.integrations.vllm.served import KEY, MODEL_TYPES, plain, reason_against
from seeless.strategy import Recipe, Strategy

OVERRIDES = "--hf-overrides"
INSTALL = 'vLLM is not installed here: pip install "seeless[vllm]", in an environment of its own'


def reason_against_model(model_type: str) -> str | None:
    """Why vLLM cannot serve models of this type with fewer tokens; None if it can."""
    if model_type in MODEL_TYPES:
        return None
    return (
        f"models of type {model_type!r} cannot be served by vLLM with fewer tokens; those that can are "
        f"{', '.join(MODEL_TYPES)}"
    )


def check_served(model_type: str, strategy: Strategy | Recipe) -> None:
    """Raise `NotServed` unless vLLM can serve models of this type with this strategy."""
    if (reason := reason_against_model(model_type)) is not None:
        raise NotServed(reason)
    if not isinstance(strategy, Strategy):
        raise NotServed("a guest of seeless.vtr acts in transformers' own forward; serve with a strategy of seeless")
    if (reason := reason_against(plain(strategy), family_of(model_type).mrope)) is not None:
        raise NotServed(reason)


def server_command(model: str, strategy: Strategy, flags: Sequence[str]) -> list[str]:
    """The command that serves a model.

    Args:
        flags: vLLM's own, passed on as they are; what `--hf-overrides` among them says is kept.

    Raises:
        BudgetError: that is no JSON object, or has a strategy of its own.
    """
    others, overrides = _without_overrides(flags)
    given = {name: value for name, value in strategy.to_dict().items() if value is not None}
    return [*_start(model), OVERRIDES, json.dumps({**overrides, KEY: given}), *others]


def check_installed() -> None:
    """Raise `MissingExtra` unless vLLM is there."""
    if importlib.util.find_spec("vllm") is None:
        raise MissingExtra(INSTALL)


def _start(model: str) -> list[str]:
    """vLLM's own command; builds of it under another name have only the module behind it."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        if importlib.util.find_spec("vllm") is not None:
            return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    return ["vllm", "serve", model]


def _without_overrides(flags: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    others: list[str] = []
    found: dict[str, Any] = {}
    rest = list(flags)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name != OVERRIDES:
            others.append(word)
            continue
        text = value if equals else rest.pop(0) if rest else ""
        found |= _overrides(text)
    return others, found


def _overrides(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise BudgetError(f"{OVERRIDES} {brief(text)} is no JSON ({error})") from error
    if not isinstance(given, dict) or KEY in given:
        raise BudgetError(f'{OVERRIDES} {brief(text)} must be a JSON object without "{KEY}", which --strategy sets')
    return given
