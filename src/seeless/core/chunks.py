"""A prompt with images prefilled in chunks: the entry decides once, then the decoder takes what is left piece by piece.

`transformers` would cut the prompt before anything is decided. So under a handle it prefills at once, and the language
model's forward is called for one chunk after the other.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from seeless.core.cache import CacheRecord, record_of
from seeless.core.family import Family
from seeless.core.frame import Running, named
from seeless.core.host import cache_in
from seeless.core.pictures import PIXELS
from seeless.core.recurrent import check_chunks
from seeless.core.session import Session
from seeless.core.stages import PlannedStage
from seeless.errors import InputError, UnsupportedModel


def prefill_at_once(
    running: Running, family: Family, stages: Sequence[PlannedStage], below: Callable, args: tuple, kwargs: dict
) -> Any:
    """Around the prefill of `generate`: one forward, whose decoder runs in chunks of the size that was asked for. Text
    alone comes in chunks as `transformers` makes them.

    Raises:
        InputError: a strategy acts between layers, or padding would come alone.
        UnsupportedModel: images of this family see themselves both ways.
    """
    given = named(below, args, kwargs)
    config, inputs = given["generation_config"], given["model_kwargs"]
    size = getattr(config, "prefill_chunk_size", None)
    shown = (*(name for names in PIXELS.values() for name in names), "mm_encoder_outputs")
    seen = [name for name in shown if inputs.get(name) is not None and len(inputs[name])]  # {} where none was encoded
    if size is not None and not seen:
        _check_padding(record_of(cache_in(inputs)), inputs.get("attention_mask"), size)
    if size is None or not seen:
        return below(*args, **kwargs)
    asked = f"a prompt with images ({seen[0]}) cannot be prefilled in chunks (prefill_chunk_size={size})"
    if family.both_ways:
        raise UnsupportedModel(
            f"{asked}: visual tokens of {family.title} see each other both ways, also those of later chunks, and "
            "transformers itself answers wrongly then; leave it out"
        )
    if late := [stage for stage in stages if stage.layer > 0]:
        raise InputError(
            f"{asked}: {late[0].name} decides before layer {late[0].layer}, for a whole prompt at once; leave it out, "
            "or use a strategy that acts at the entry or in the tower. Text that follows later may come in chunks"
        )
    whole = copy.copy(config)
    whole.prefill_chunk_size = None
    outer, running.chunk = running.chunk, size
    try:
        return below(**{**given, "generation_config": whole})
    finally:
        running.chunk = outer


def _check_padding(record: CacheRecord | None, mask: torch.Tensor | None, size: int) -> None:
    """Refuse chunks of one token, on a reduced cache, that are padding in some row: one token is never taken for that.

    Raises:
        InputError: there is one.
    """
    if record is None or not isinstance(mask, torch.Tensor) or mask.ndim != 2:
        return
    later = mask[:, record.length :]
    alone = later if size == 1 else later[:, later.shape[1] - int(later.shape[1] % size == 1) :]
    if not bool(alone.all()):
        raise InputError(
            f"with prefill_chunk_size={size} some padding comes as a chunk of one token, which on a reduced cache is "
            "never taken for padding; use another size, from 2 on, pad on the left, or go on with one row at a time"
        )


def in_chunks(below: Callable, kwargs: dict, size: int, session: Session) -> Any:
    """What the language model gives for the tokens that are left, taken in `size` at a time.

    Attention maps, if they are asked for, are those of the last chunk, as `transformers` has it.
    """
    embeds, mask, past = kwargs["inputs_embeds"], kwargs.get("attention_mask"), session.past
    length, outputs = embeds.shape[1], []
    if cache_in(kwargs) is None or (past.record is not None and len(past.record.spans) > 1):
        raise InputError(
            f"prefill_chunk_size={size} needs a cache whose layers all hold the same tokens; leave it out where there "
            "is none, or where tokens of an earlier turn left between layers"
        )
    if isinstance(mask, dict) or (mask is not None and mask.ndim != 2):
        raise InputError(
            f"prefill_chunk_size={size} does not go with a conversation of {past.tokens + session.prompt.length} "
            f"tokens, which fills the window of {session.view.window} that some layers look back (sliding_window): "
            "masks made for what is left of it serve a whole prompt; leave it out"
        )
    check_chunks(session.view, session.row, size)
    for start in range(0, length, size):
        end = min(start + size, length)
        part = {**kwargs, "inputs_embeds": embeds[:, start:end]}
        if mask is not None:
            part["attention_mask"] = mask[:, : past.columns[0] + end]
        for name in ("position_ids", "cache_position"):
            if isinstance(whole := kwargs.get(name), torch.Tensor):
                part[name] = whole[..., start:end]
        own = session.view.family.layer_inputs
        if own is not None and kwargs.get(own[0]) is not None:
            part[own[0]] = kwargs[own[0]][:, start:end]
        session.chunk = start, end
        outputs.append(below(**part))
    output = outputs[-1]
    output.last_hidden_state = torch.cat([each.last_hidden_state for each in outputs], 1)
    if output.get("hidden_states") is not None:
        output.hidden_states = tuple(torch.cat(x, 1) for x in zip(*(e.hidden_states for e in outputs), strict=True))
    return output
