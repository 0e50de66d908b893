"""The tower's last layers, where nobody reads what they make: they do not run.

LLaVA's projector takes the output of the second last layer; the last one is computed in vain.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from seeless.core.family import Kind, ModelView
from seeless.core.hooks import HookSet, past_seams
from seeless.core.host import is_stock

WRAPPING = ("_orig_mod", "_fsdp_wrapped_module")  # what modules around others call these: compiled ones, sharded ones
ASKED = ("output_hidden_states", "output_attentions")
KNOWN = ("torch", "transformers", "peft", "bitsandbytes")  # whose modules do nothing but compute


def skip_tail(view: ModelView, kind: Kind, last: int, given: dict[str, Any], hooks: HookSet) -> int:
    """Have the tower's layers behind the last one that is read give back what they take in, unless somebody could tell.

    Args:
        last: the last layer whose output or attention is read.
        given: the arguments of `get_image_features`.
        hooks: takes the seams.

    Returns:
        How many layers do not run.
    """
    layers = view.tower_layers(kind)
    tail = list(layers[last + 1 :]) if last >= 0 else []
    if not tail or _asked(view, kind, given) or not _unwatched(view.tower(kind), set(layers[: last + 1]), tail):
        return 0
    form: list[tuple | None] = []  # what comes behind the states in a layer's output; None: they come alone

    def learn(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        form[:] = [output[1:] if isinstance(output, tuple) else None]

    def pass_on(below: Any, args: tuple, kwargs: dict) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return hidden if form[0] is None else (hidden, *form[0])

    hooks.after(layers[last], learn)
    for layer in tail:
        hooks.around(layer, "forward", pass_on)
    return len(tail)


def without_tail(output: Any, skipped: int) -> Any:
    """The tower's output without what layers that did not run would have made: None in their places."""
    found = {**output, "last_hidden_state": None}
    if (states := found.get("hidden_states")) is not None:
        found["hidden_states"] = (*states[:-skipped], *[None] * skipped)
    return type(output)(**found)


def _asked(view: ModelView, kind: Kind, given: dict[str, Any]) -> bool:
    """Whether every layer's states or attention are asked for."""
    configs = (view.tower(kind).config, view.config)
    return any(given.get(name) or any(getattr(config, name, False) for config in configs) for name in ASKED)


def _unwatched(tower: nn.Module, kept: set[nn.Module], tail: list[nn.Module]) -> bool:
    """Whether nothing of somebody else's sees what the layers of the tail, or parts of the tower behind them, do."""
    if torch.nn.modules.module._has_any_global_hook():
        return False
    drawing = any("drop" in name and value for name, value in vars(tower.config).items())  # numbers of a generator
    for layer in tail:
        if layer.training and (drawing or any(_draws(part) for part in layer.modules())):
            return False
    return all(_is_plain(part) for part in _outside(tower, kept))


def _outside(module: nn.Module, kept: set[nn.Module]) -> Iterator[nn.Module]:
    """A module and all in it, but for what is `kept`."""
    yield module
    for child in module.children():
        if child not in kept:
            yield from _outside(child, kept)


def _draws(part: nn.Module) -> bool:
    return isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0


def _is_plain(part: nn.Module) -> bool:
    """Whether a module is nobody's own, and runs as its class says, uncompiled, whole on this process, and with no hook
    of others."""
    if type(part).__module__.partition(".")[0] not in KNOWN:
        return False
    if part._compiled_call_impl is not None or any(hasattr(part, name) for name in WRAPPING):
        return False
    if part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks:
        return False
    own = getattr(past_seams(part, "forward"), "__func__", None) is type(part).forward
    return own and all(map(is_stock, part._forward_hooks.values()))
