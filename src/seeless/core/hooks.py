"""Seams: callables in place of methods of somebody else's objects, told apart by thread, put on and taken off."""

import threading
from collections.abc import Callable, Iterable
from functools import WRAPPER_ASSIGNMENTS, partial
from operator import getitem
from types import CodeType, MethodType
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from seeless.core.host import version
from seeless.errors import UnsupportedModel

NO_TRACING = (
    "a model under seeless.apply runs eagerly and cannot be exported, traced or compiled with fullgraph=True, since "
    "which tokens leave depends on the picture; remove the handle first"
)

_ABSENT: Any = object()
_changing = threading.Lock()  # while a seam is put on or taken off
_open: "set[HookSet]" = set()  # those with seams on, of one thread each

Around = Callable[[Callable, tuple, dict], Any]


class Seam:
    """Stands in the `__dict__` of `owner` under `name` and calls `around(below, args, kwargs)`.

    `below` is what stood there before: the class's method, or an attribute of the instance, which may be another seam.
    Taken off, or copied along with its owner, a seam is no more than what is below it, on the copy's own side.
    """

    def __init__(self, owner: Any, name: str, around: Around) -> None:
        self.owner, self.name = owner, name
        self.around: Around | None = around
        self.held: Any = _ABSENT

    @property
    def below(self) -> Callable:
        held = self.held
        return MethodType(getattr(type(self.owner), self.name), self.owner) if held is _ABSENT else held

    @property
    def __wrapped__(self) -> Callable:  # from here `inspect.signature` reads on
        return self.below

    @property
    def __code__(self) -> CodeType:  # torch.export asks before it calls
        return self.below.__code__

    @torch.compiler.disable(reason=NO_TRACING)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        around = self.around
        return self.below(*args, **kwargs) if around is None else around(self.below, args, kwargs)

    def put(self) -> None:
        """Put it on, on top of what is there."""
        with _changing:
            self.held = _settled(vars(self.owner).get(self.name, _ABSENT))
            below = self.below
            for attribute in WRAPPER_ASSIGNMENTS:
                if (value := getattr(below, attribute, None)) is not None:
                    vars(self)[attribute] = value
            vars(self.owner)[self.name] = self

    def lift(self) -> None:
        """Take it off. Where somebody has put something of theirs on top, or in its place, that stays."""
        self.around = None
        with _changing:
            top = vars(self.owner).get(self.name, _ABSENT)
            left = _settled(top)
            if left is _ABSENT:
                vars(self.owner).pop(self.name, None)
            elif left is not top:
                vars(self.owner)[self.name] = left
            while isinstance(left, Seam):  # somebody else's seams: none holds one that was taken off
                left.held = _settled(left.held)
                left = left.held

    def __deepcopy__(self, memo: dict) -> Any:
        from copy import deepcopy

        return deepcopy(self.below, memo)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        below = self.below
        if isinstance(below, MethodType):
            return getattr, (below.__self__, self.name)
        return getitem, ((below,), 0)


def _settled(value: Any) -> Any:
    """What is left of a value in an object's `__dict__`: below seams that were taken off."""
    while isinstance(value, Seam) and value.around is None:
        value = value.held
    return value


def without_seams(below: Callable, args: tuple, kwargs: dict) -> tuple:
    """Around `__reduce_ex__` of an object with seams: its copies, also by pickling, have none."""
    how, what, state, *rest = below(*args, **kwargs)
    bare = {}
    for name, value in state.items():
        while isinstance(value, Seam):
            value = value.held
        if value is not _ABSENT:
            bare[name] = value
    return how, what, bare, *rest


def past_seams(owner: Any, name: str) -> Callable:
    """A method of `owner` as it is below all seams."""
    value = getattr(owner, name)
    while isinstance(value, Seam):
        value = value.below
    return value


def is_bare(owner: Any, name: str) -> bool:
    """Whether `owner.name` leads to the method of its class past all seams."""
    value = vars(owner).get(name, _ABSENT)
    while value is not _ABSENT and not isinstance(value, MethodType):
        if value is None or (isinstance(value, Seam) and value.around is not None):
            return False
        value = getattr(value, "__wrapped__", None)
    return True


class HookSet:
    """Seams that come off together.

    Args:
        everywhere: act in every thread; else in the one that made this set, while all other threads pass through.
    """

    def __init__(self, everywhere: bool = False) -> None:
        self.thread = None if everywhere else threading.get_ident()
        self.over = False  # set first of all where an interrupt might come between a forward's end and `remove`
        self._seams: dict[Seam, None] = {}  # in the order in which they were put on

    def around(self, owner: Any, name: str, call: Around) -> None:
        """Have `call(below, args, kwargs)` called in place of a method of `owner`; the last one put is the first asked.

        `below` is what was there; `call` decides whether and with what to call it.
        """

        def act(below: Callable, args: tuple, kwargs: dict) -> Any:
            if self.over or self.thread not in (None, threading.get_ident()):
                return below(*args, **kwargs)
            return call(below, args, kwargs)

        if self.thread is not None:
            _open.add(self)
        seam = Seam(owner, name, call if self.thread is None else act)
        self._seams[seam] = None
        seam.put()

    def override(self, owner: Any, name: str, value: Callable) -> None:
        """Have `value` called in place of a method of `owner`."""
        self.around(owner, name, lambda below, args, kwargs: value(*args, **kwargs))

    def before(self, module: nn.Module, hook: Callable) -> None:
        """Call `hook(module, args, kwargs)` before the module's forward; it may return new `(args, kwargs)`."""

        def call(below: Callable, args: tuple, kwargs: dict) -> Any:
            if (changed := hook(module, args, kwargs)) is not None:
                args, kwargs = changed
            return below(*args, **kwargs)

        self.around(module, "forward", call)

    def after(self, module: nn.Module, hook: Callable) -> None:
        """Call `hook(module, args, kwargs, output)` after the module's forward; it may return another output."""

        def call(below: Callable, args: tuple, kwargs: dict) -> Any:
            output = below(*args, **kwargs)
            changed = hook(module, args, kwargs, output)
            return output if changed is None else changed

        self.around(module, "forward", call)

    def remove(self) -> None:
        """Take all of them off; safe to call again, also after it was interrupted, and from several threads."""
        self.over = True
        for seam in list(reversed(self._seams)):
            seam.lift()
            self._seams.pop(seam, None)
        _open.discard(self)

    @staticmethod
    def sweep() -> None:
        """Take off what an interrupted `remove` has left."""
        for each in list(_open) if _open else ():
            if each.over:
                each.remove()


def hook_layers(layers: Any, needed: Iterable[int], before: Callable, hooks: HookSet) -> None:
    """Call `before(index, args, kwargs)`, which may change both, ahead of each needed layer, once per forward."""
    for index in needed:
        layer = layers[index]
        if _recomputes_hooks(layer):  # step in before that
            hooks.override(layer, "_gradient_checkpointing_func", _ahead(index, layer, before))
        else:
            hooks.before(layer, partial(_hook, index, before))


def around_layers(layers: Any, needed: Iterable[int], around: Callable, hooks: HookSet) -> None:
    """Have `around(index, below, args, kwargs)` called in place of each needed layer, once per forward.

    Raises:
        UnsupportedModel: a layer's output is recorded where it cannot be changed any more.
    """
    for index in needed:
        if _recomputes_hooks(layers[index]):
            raise UnsupportedModel(
                f"under gradient checkpointing, transformers {version()} records what a layer of a vision tower gives "
                "before patches that left can be put back; update transformers, leave gradient checkpointing off, or "
                "use a strategy that acts at the entry or later"
            )
        hooks.around(layers[index], "forward", partial(around, index))


def _recomputes_hooks(layer: Any) -> bool:
    """Whether the next forward of a layer is recomputed together with its hooks, as in older releases."""
    return "__call__" in vars(GradientCheckpointingLayer) and layer.gradient_checkpointing and layer.training


def _hook(index: int, before: Callable, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return before(index, args, kwargs)


def _ahead(index: int, layer: Any, before: Callable) -> Callable:
    checkpoint = layer._gradient_checkpointing_func

    def run(call: partial, *args: Any) -> Any:
        args, kwargs = before(index, args, call.keywords)
        return checkpoint(partial(call.func, *call.args, **kwargs), *args)

    return run
