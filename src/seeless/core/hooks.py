"""Hooks and instance attributes that can be taken off again, in reverse order."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

_ABSENT = object()


class HookSet:
    """A set of changes to modules; `remove` undoes all of them, the last one first."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def before(self, module: nn.Module, hook: Callable) -> None:
        """Call `hook(module, args, kwargs)` before the module's forward; it may return new `(args, kwargs)`."""
        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        self._undo.append(handle.remove)

    def after(self, module: nn.Module, hook: Callable) -> None:
        """Call `hook(module, args, kwargs, output)` after the module's forward, also when it raised."""
        handle = module.register_forward_hook(hook, with_kwargs=True, always_call=True)
        self._undo.append(handle.remove)

    def override(self, owner: Any, name: str, value: Any) -> None:
        """Put an attribute on the instance; undoing brings back what its `__dict__` held, or nothing."""
        before = vars(owner).get(name, _ABSENT)

        def undo() -> None:
            if before is _ABSENT:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = before

        vars(owner)[name] = value
        self._undo.append(undo)

    def remove(self) -> None:
        while self._undo:
            self._undo.pop()()


def hook_layers(layers: Any, needed: Iterable[int], before: Callable, hooks: HookSet) -> None:
    """Call `before(index, args, kwargs)`, which may change both, ahead of each needed layer, once per forward."""
    for index in needed:
        layer = layers[index]
        if "__call__" in vars(GradientCheckpointingLayer) and layer.gradient_checkpointing and layer.training:
            # These releases of transformers recompute a layer together with its hooks; step in before that.
            hooks.override(layer, "_gradient_checkpointing_func", _ahead(index, layer, before))
        else:
            hooks.before(layer, partial(_hook, index, before))


def _hook(index: int, before: Callable, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return before(index, args, kwargs)


def _ahead(index: int, layer: Any, before: Callable) -> Callable:
    checkpoint = layer._gradient_checkpointing_func

    def run(call: partial, *args: Any) -> Any:
        args, kwargs = before(index, args, call.keywords)
        return checkpoint(partial(call.func, *call.args, **kwargs), *args)

    return run
