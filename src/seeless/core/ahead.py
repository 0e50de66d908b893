"""What a layer that has yet to run would hand to its kernel: it runs up to there, and makes what is asked for."""

from collections.abc import Callable, MutableMapping
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from seeless.core.attention import Rows, read_nothing, tolerance
from seeless.core.cache import held_keys, is_static
from seeless.core.capture import Call, Capture, Reached, is_checked
from seeless.core.hooks import HookSet, is_bare, past_seams
from seeless.core.host import CACHE_NAMES, KEYS, QUERIES, VALUES, cache_in
from seeless.core.sharding import check_whole, leave
from seeless.errors import UnsupportedModel

MANY = 4  # where more than one token in so many is asked for, all queries are made
# By layer, whether queries of some tokens are those that all together make.
_alone: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


class _WithoutDropout(TorchFunctionMode):
    """No dropout in what this thread calls."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.nn.functional.dropout, torch.dropout):
            return args[0] if args else (kwargs or {})["input"]
        return function(*args, **(kwargs or {}))


def _projections(layer: nn.Module, name: str, check: bool) -> list[nn.Linear]:
    """Of the layer's attention, but not those that anybody has wrapped, hooked or moved, and none of attention that is
    to be checked."""
    found = []
    for part in layer.modules():
        own = getattr(part, name, None)
        if type(own) is not nn.Linear or (check and not is_checked(part)):
            continue
        if is_bare(own, "forward") and not (own._forward_pre_hooks or own._forward_hooks):
            found.append(own)
    return found


def _unmade(own: nn.Linear, below: Callable, args: tuple, kwargs: dict) -> torch.Tensor:
    """In place of a projection that nobody reads."""
    return args[0].new_zeros(*args[0].shape[:-1], own.out_features)  # the weight may be away, on disk


def _of_some(asked: Rows, below: Callable, args: tuple, kwargs: dict) -> torch.Tensor:
    """In place of a projection `[batch, seq, ...]` of which some tokens are read: 0 for the others."""
    rows, slots = (x.to(args[0].device) for x in asked)
    made = below(args[0][rows[:, None], slots])
    some = made.new_zeros(*args[0].shape[:-1], made.shape[-1])
    some[rows[:, None], slots] = made
    return some


class _Peek:
    """A KV cache that shows what it holds, and keeps nothing.

    Args:
        past: tokens the layer's kernel got from the cache before this forward.
    """

    def __init__(self, cache: Any, past: int) -> None:
        self._cache, self._past = cache, past

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        shown: tuple[torch.Tensor, ...] = (keys, values)
        if self._past:
            own = self._cache.layers[layer_idx]
            if own.keys.shape[-2] < self._past:
                raise UnsupportedModel(
                    f"{type(own).__name__} holds the keys of earlier turns in another form, so the attention of a "
                    "layer that has not run yet cannot be read; use the default cache"
                )
            held = zip(held_keys(own, self._past), shown, strict=True)
            shown = tuple(torch.cat([before.to(now.device), now], 2) for before, now in held)
        if is_static(self._cache):  # a mask has columns for all there is room for
            room = self._cache.get_mask_sizes(keys.shape[2], layer_idx)[0] - shown[0].shape[2]
            shown = tuple(torch.nn.functional.pad(x, (0, 0, 0, room)) for x in shown)
        return shown


@torch.no_grad()
def run_ahead(
    layer: nn.Module,
    hidden: torch.Tensor,
    args: tuple,
    kwargs: dict,
    past: int,
    check: bool,
    asked: Rows | None = None,
    keys: torch.Tensor | None = None,
) -> Call | None:
    """What a layer would hand to its kernel if it ran on `hidden`; it runs up to there, and without dropout.

    Args:
        args, kwargs: its other arguments; its cache is read, not written.
        past: tokens that cache hands to the kernel ahead of these.
        check: make everything, and run the kernel, where such attention was not compared yet.
        asked: tokens whose queries are read, where the layer projects them apart; None = all.
        keys: those of an earlier run on the same; None = make them.

    Returns:
        None if it asks for no kernel by name.

    Raises:
        UnsupportedModel: pieces of its weights lie on other processes.
    """
    check_whole(layer)
    calls: list[Call] = []

    def note(number: int, call: Call) -> None:
        calls.append(call)
        raise Reached(call.module)

    if (cache := cache_in(kwargs)) is not None:
        kwargs = {**kwargs, **{name: _Peek(cache, past) for name in CACHE_NAMES if name in kwargs}}
    kwargs = {name: copy(x) if isinstance(x, MutableMapping) else x for name, x in kwargs.items()}  # layers write there
    hooks = HookSet()
    try:
        for name in (VALUES,) if keys is None else (VALUES, KEYS):
            for own in _projections(layer, name, check):
                hooks.around(own, "forward", partial(_unmade, own))
        if asked is not None:
            for own in _projections(layer, QUERIES, check):
                hooks.around(own, "forward", partial(_of_some, asked))
        with _WithoutDropout(), Capture({0: layer}, note, check, ahead=True):
            past_seams(layer, "forward")(hidden, *args, **kwargs)  # those belong to the layer's own run
    except Reached as reached:
        leave(layer, reached.module)
    finally:
        hooks.over = True
        hooks.remove()
    if not calls:
        return None
    return calls[0] if keys is None else replace(calls[0], key=keys)


class Ahead:
    """What a layer that has yet to run would hand to its kernel: keys, made once, and the queries that are asked for.

    Args:
        layer: it.
        hidden: `[batch, slots, dim]`, what enters it.
        given: its other arguments; called when something is read.
        past, check: as of `run_ahead`.
    """

    def __init__(
        self, layer: nn.Module, hidden: torch.Tensor, given: Callable[[], tuple[tuple, dict]], past: int, check: bool
    ) -> None:
        self.layer, self.hidden, self.past, self.check = layer, hidden, past, check
        self._given = given
        self._whole: Call | None = None
        self._keys: torch.Tensor | None = None
        self._asked = 0

    def __call__(self, asked: Rows | None) -> Call:
        """The call, with the queries of some tokens, or of more.

        Raises:
            UnsupportedModel: the layer asks for no kernel by name.
        """
        if self._whole is None and asked is not None:
            number = asked[1].numel()
            if MANY * (self._asked + number) <= self.hidden.shape[:2].numel() and self._apart(False):
                if self.check and not self._apart(True):
                    return self._run(None, True)  # who reads that compares it with the kernel's output, and asks again
                self._asked += number
                if self._alone(asked):
                    return self._run(asked, False)
        if self._whole is None:
            self._whole = self._run(None, self.check)
        return self._whole

    def _apart(self, checked: bool) -> bool:
        """Whether queries have a projection of their own, in attention that was compared with its kernel if so said."""
        return bool(_projections(self.layer, QUERIES, checked))

    def _run(self, asked: Rows | None, check: bool) -> Call:
        args, kwargs = self._given()
        call = run_ahead(self.layer, self.hidden, args, kwargs, self.past, check, asked, self._keys)
        if call is None:
            raise read_nothing(self.layer)
        self._keys = call.key
        return call

    def _alone(self, asked: Rows) -> bool:
        """Whether queries of some tokens are those that all together make, which is tried once per layer: weights that
        quantise what they are given, or a forward that somebody put there, are a model's own.

        What is told then is made as it ever is after, so a first prompt is told the same to the bit as a later one.
        """
        layer, (rows, slots) = self.layer, asked
        if layer not in _alone:
            whole = self._run(None, False)
            among, alone = (
                call.query[rows.to(call.query.device)[:, None], :, slots.to(call.query.device)].float()
                for call in (whole, self._run(asked, False))
            )
            bound = tolerance(whole.query) * among.abs().amax()
            _alone[layer] = bool((among - alone).abs().amax() <= bound)
        return _alone[layer]
