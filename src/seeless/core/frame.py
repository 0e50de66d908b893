"""What is known of one running forward of a model; every thread has its own."""

import inspect
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from seeless.core.cache import CacheRecord
from seeless.core.hooks import NO_TRACING, HookSet
from seeless.core.pictures import Pictures
from seeless.core.prompt import PromptLength
from seeless.core.session import Session
from seeless.errors import UnsupportedModel

PASSED_BY = (
    "the forward of {part} no longer goes through seeless: something took the place of this module or of its forward "
    "while the handle was active (device hooks put on or taken off, another patch); remove the handle, and apply again"
)


@dataclass(eq=False)
class Frame:
    """One forward, from the entry of the outermost module that carries a seam to its exit.

    Args:
        labels: `[batch, seq]` in training on answers, -100 = nothing to be learnt; else None.
        given: the arguments of the base model by name, once it runs.
        pictures: its visual tokens, until the language model takes them.
        entered: whether the language model has begun.
        session: of a prefill with visual tokens.
        logical: tokens of the conversation after this forward, dropped ones included.
        hooks: seams for this forward alone.
        watch: to be entered while the language model runs.
        over: nothing of it counts any more.
    """

    labels: torch.Tensor | None = None
    given: dict[str, Any] | None = None
    pictures: Pictures | None = None
    entered: bool = False
    session: Session | None = None
    logical: int = 0
    hooks: HookSet = field(default_factory=HookSet)
    watch: AbstractContextManager = field(default_factory=nullcontext)
    over: bool = False

    def argument(self, name: str) -> Any:
        """An argument of the base model; None if it was not given."""
        return None if self.given is None else self.given.get(name)


@dataclass(eq=False)
class Step:
    """A forward of one more token that needs no frame.

    Args:
        record: of the cache, all of whose layers hold the same tokens, none of them padding.
        ids: `[batch, 1]`, the model's `input_ids`.
        length: tokens of the conversation before this one, dropped ones included.
        entered: whether the language model has begun.
    """

    record: CacheRecord
    ids: torch.Tensor
    length: int
    entered: bool = False


class Running(threading.local):
    """What of one model runs in this thread.

    Args:
        step: what runs without a frame.
        frame: the innermost forward; None outside of all.
        encoding: whether `generate` encodes pictures for its prefill.
        prompt: tokens of the conversation with which `generate` was called; None outside of it.
        prompt_length: columns of the input that belong to the prompt, where somebody said so.
        chunk: tokens that the decoder shall take in at a time; None: all.
    """

    frame: Frame | None = None
    step: Step | None = None
    encoding: bool = False
    prompt: int | None = None
    prompt_length: PromptLength | None = None
    chunk: int | None = None

    def current(self) -> Frame | None:
        """The running frame, if there is one."""
        frame = self.frame
        return None if frame is None or frame.over else frame


def refuse_tracing() -> None:
    """Refuse to be recorded: what is cut depends on the tensors.

    Raises:
        UnsupportedModel: torch.export, torch.jit.trace or an ONNX export is recording this forward.
    """
    if torch._C._get_tracing_state() is not None or torch.compiler.is_exporting():
        raise UnsupportedModel(NO_TRACING)


def named(function: Callable, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a call by name."""
    names = list(inspect.signature(function).parameters) if args else []
    return {**dict(zip(names, args, strict=False)), **kwargs}


def new_frame(labels: torch.Tensor | None = None) -> Frame:
    """The frame of a forward that begins."""
    refuse_tracing()
    HookSet.sweep()
    return Frame(labels)


def refuse_replicas(below: Callable, args: tuple, kwargs: dict) -> Any:
    """Around the making of a replica."""
    raise UnsupportedModel(
        "DataParallel copies the model for every forward, and copies carry no handle; use DistributedDataParallel or "
        "one device, or remove the handle"
    )


def named_output(module: Any, kwargs: dict) -> dict:
    """Arguments with which the module gives its output by name, whatever its config says."""
    return kwargs if getattr(module.config, "return_dict", True) else {**kwargs, "return_dict": True}
