"""One more token on a cache of whose tokens every layer holds the same, none of them padding, as after an entry cut.

The model's own arguments then serve but for mask and positions, and nothing else is looked at: most forwards of a
generation are of this kind.
"""

from collections.abc import Callable
from typing import Any

import torch

from seeless.core.cache import record_of
from seeless.core.family import ModelView
from seeless.core.frame import PASSED_BY, Running, Step, refuse_tracing
from seeless.core.host import cache_in
from seeless.core.pictures import PIXELS
from seeless.errors import UnsupportedModel

MORE = (*PIXELS["image"], *PIXELS["video"], "mm_encoder_outputs", "labels")


def even_step(view: ModelView, kwargs: dict) -> Step | None:
    """Such a step, if a forward of the model with these arguments is one that no rule of its own concerns."""
    ids, mask, record = kwargs.get("input_ids"), kwargs.get("attention_mask"), record_of(cache_in(kwargs))
    if record is None or ids is None or ids.shape[1] != 1:
        return None
    if view.window is not None or not record.even or not record.keeper.active:
        return None
    for name in MORE:
        if kwargs.get(name) is not None:
            return None
    length = record.length
    if mask is not None and not (isinstance(mask, torch.Tensor) and mask.ndim == 2 and mask.shape[1] == length + 1):
        return None
    return Step(record, ids, length)


def run_step(view: ModelView, running: Running, step: Step, below: Callable, kwargs: dict) -> Any:
    """The model's output; its decoder is to enter the step.

    Raises:
        UnsupportedModel: it did not.
    """
    refuse_tracing()
    try:
        running.step = step
        output = below(**kwargs)
    finally:
        running.step = None
    if not step.entered:
        raise UnsupportedModel(PASSED_BY.format(part=type(view.language_model).__name__))
    return output


def base_steps(running: Running, step: Step, args: tuple, kwargs: dict) -> bool:
    """Whether a forward of the base model is the one of this step. Where something on the way gave other tokens, there
    is no step any more, and the forward is looked at as any other."""
    if (args[0] if args else kwargs.get("input_ids")) is step.ids:
        return True
    running.step, step.entered = None, True
    return False


def decoder_steps(step: Step, kwargs: dict) -> bool:
    """Whether a forward of the decoder is the one of this step; else it is looked at as any other."""
    step.entered, embeds = True, kwargs.get("inputs_embeds")
    return embeds is not None and embeds.shape[1] == 1 and cache_in(kwargs) is step.record.cache


def run_decoder(step: Step, below: Callable, kwargs: dict) -> Any:
    """The decoder's output for the one token: it sees all columns, at the position it has in these layers."""
    record = step.record
    kwargs = {**kwargs, "attention_mask": None}
    if (moved := record.spans[0].moved) is not None:
        given = kwargs.get("position_ids")  # of rows whose prompts were padded not the columns so far
        kwargs["position_ids"] = moved.to(kwargs["inputs_embeds"].device) + (step.length if given is None else given)
    output = below(**kwargs)
    record.since += 1
    return output
