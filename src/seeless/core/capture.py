"""What attention modules hand to their kernel: seen where every one of them asks for the kernel by its name.

Decoders and towers of `transformers` make queries and keys each in a way of their own (norms, rotary embeddings, fused
or compressed projections), and then all give them to a function that they get by name. There they are final.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import nn

from seeless.core.host import AttentionInterface, attention_options

Kind = tuple[type, str, Any]  # what is checked once: attention of a class of modules under a kernel, by name and itself
_checked: set[Kind] = set()  # what was compared with what is read here


def is_checked(module: nn.Module) -> bool:
    """Whether attention of this module's class was compared under its kernel, and that is still what its name stands
    for."""
    name = getattr(getattr(module, "config", None), "_attn_implementation", None)
    known = [kernel for kind, own, kernel in _checked if (kind, own) == (type(module), name)]
    return bool(known) and AttentionInterface().get(name, known[0]) in known  # "eager" is no entry there


class Reached(Exception):
    """The attention that was asked for has been seen; nothing behind it need run.

    Args:
        module: whose it is.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module


@dataclass
class Call:
    """One call of an attention kernel, without gradients.

    Args:
        kernel: its name, `config._attn_implementation`.
        query: `[batch, heads, queries, dim]`; key: `[batch, kv_heads, keys, dim]`, cached ones included.
        scaling: factor on their product.
        softcap: bound of the scores; None = unbounded.
        sinks: `[heads]`, a score that takes part in every softmax and belongs to no key; None = none.
        ends: where the pieces of one long sequence that see only themselves end, `[pieces + 1]`; None = one piece.
        value: `[batch, kv_heads, keys, value dim]`, and output, `[batch, queries, heads, value dim]`: only where the
            attention of such a module under such a kernel has not been checked yet; values also where they are asked
            for.
        function: the kernel itself.
    """

    module: nn.Module
    kernel: str
    query: torch.Tensor
    key: torch.Tensor
    scaling: float
    softcap: float | None
    sinks: torch.Tensor | None
    ends: torch.Tensor | None
    value: torch.Tensor | None = None
    output: torch.Tensor | None = None
    function: Callable | None = None

    @property
    def kind(self) -> Kind:
        """What is checked once: modules of a class under one kernel."""
        return type(self.module), self.kernel, self.function

    def passed(self) -> None:
        """Take note that the attention of this kind is read as the model computes it."""
        _checked.add(self.kind)
        self.value = self.output = None


class Capture:
    """Sees the calls of attention modules, in this thread, while it is entered.

    Args:
        owners: the modules whose attention is of interest, each by the number that `note` gets.
        note: gets that number and the call; it may raise `Reached` to stop there.
        check: keep values and outputs of calls of a kind that was not checked in this process yet.
        ahead: give the call to `note` before its kernel runs, unless its output is to be checked.
        values: keep values of every call.
    """

    def __init__(
        self,
        owners: Mapping[int, nn.Module],
        note: Callable[[int, Call], None],
        check: bool,
        ahead: bool = False,
        values: bool = False,
    ) -> None:
        self.owner = {id(part): number for number, module in owners.items() for part in module.modules()}
        self.note, self.check, self.ahead, self.values = note, check, ahead, values

    def __enter__(self) -> "Capture":
        _entered().append(self)
        _interception.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _interception.leave(self)
        if self in _entered():
            _entered().remove(self)

    def see(self, call: Call, dropout: float, value: torch.Tensor, run: Callable[[], Any]) -> Any:
        """Run the kernel of a call, and note it."""
        number = self.owner[id(call.module)]
        to_check = self.check and not dropout and call.kind not in _checked
        if self.values:
            call.value = value.detach()
        if self.ahead and not to_check:
            self.note(number, call)
            return run()
        output = run()
        if to_check:
            call.value, call.output = value.detach(), output[0].detach()
        self.note(number, call)
        return output


def forget() -> None:
    """Leave the captures of this thread: for where none can be running, so that an interrupt has left them behind."""
    for capture in list(_entered()):
        capture.__exit__(None, None, None)


class _Interception:
    """Stands before the look-up of kernels by name while any thread has entered a capture.

    An interrupt may come between any two lines here: to enter and to leave twice does no harm.
    """

    def __init__(self) -> None:
        self.lock, self.installed = threading.Lock(), False
        self.users: set[Capture] = set()
        self.stock: Any = None

    def enter(self, capture: Capture) -> None:
        with self.lock:
            self.users.add(capture)
            if not self.installed:
                if AttentionInterface.get_interface is not _get_interface:
                    self.stock = AttentionInterface.get_interface
                    AttentionInterface.get_interface = _get_interface  # type: ignore[method-assign, assignment]
                self.installed = True

    def leave(self, capture: Capture) -> None:
        with self.lock:
            self.users.discard(capture)
            if not self.users and AttentionInterface.get_interface is _get_interface:  # nobody has put theirs on top
                AttentionInterface.get_interface = self.stock  # type: ignore[method-assign]
                self.installed = False


_interception = _Interception()
_here = threading.local()


def _entered() -> list[Capture]:
    if not hasattr(_here, "captures"):
        _here.captures = []
    return _here.captures


def _get_interface(self: Any, name: str, default: Callable) -> Callable:
    kernel = _interception.stock(self, name, default)
    return partial(_watched, kernel, str(name)) if _entered() else kernel


def _watched(
    kernel: Callable,
    name: str,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    run = partial(kernel, module, query, key, value, *args, **kwargs)
    for capture in reversed(_entered()):
        if id(module) in capture.owner:
            options = attention_options(type(module).__name__, kwargs)
            call = Call(
                module,
                name,
                query.detach(),
                key.detach(),
                query.shape[-1] ** -0.5 if options.scaling is None else options.scaling,
                options.softcap,
                None if options.sinks is None else options.sinks.detach(),
                options.ends,
                function=kernel,
            )
            return capture.see(call, options.dropout, value, run)
    return run()
