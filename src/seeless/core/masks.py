"""Attention masks in the form in which the model's own kernel wants them."""

from typing import Any

import torch
from torch import nn
from transformers.masking_utils import create_causal_mask

from seeless.core.cache import cached_length
from seeless.core.family import Family, ModelView
from seeless.core.host import CACHE
from seeless.errors import UnsupportedModel


def causal_mask(
    view: ModelView,
    hidden: torch.Tensor,
    mask: torch.Tensor | None,
    cache: Any,
    layer: int,
    blocks: torch.Tensor | None = None,
) -> Any:
    """The mask the model's own attention kernel wants for `hidden` at this layer; of a recurrent layer, see
    `recurrent_mask`.

    Args:
        mask: 2-D, `[batch, past + slots]`, with padding in it; None = all visible.
        blocks: `[batch, slots]`, tokens of one block see each other both ways; None = plainly causal.

    Raises:
        UnsupportedModel: the kernel takes no mask that could express the blocks.
    """
    if not view.attends(layer):
        return recurrent_mask(mask, hidden)
    if blocks is not None:  # tokens cached before belong to no block
        blocks = nn.functional.pad(blocks.to(hidden.device), (cached_length(cache, layer), 0), value=-1)
    made = create_causal_mask(
        config=view.language_model.config,
        inputs_embeds=hidden,
        attention_mask=None if mask is None else mask.to(hidden.device),
        layer_idx=layer,
        block_sequence_ids=blocks,
        allow_is_causal_skip=mask is None,  # a mask has padding in it: no need to look, which would wait for the device
        **{CACHE: cache},
    )
    if blocks is not None:
        check_both_ways(view, made)
    if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
        made = made.clamp(min=lowest(made.dtype))
    return made


def recurrent_mask(mask: torch.Tensor | None, hidden: torch.Tensor) -> torch.Tensor | None:
    """What recurrent layers take, `[batch, slots]`, False on padding, which is zeroed before it enters; None = none.

    What transformers' `create_recurrent_attention_mask` makes, without asking the device whether there is padding.

    Args:
        mask: 2-D, `[batch, past + slots]`; None = all visible.
    """
    slots = hidden.shape[1]
    return None if mask is None or slots == 1 else mask[:, -slots:].to(hidden.device)


def lowest(dtype: torch.dtype) -> float:
    """What eager attention adds where nothing is to be seen. Its softmax is taken in float32, where the smallest
    float64 is -inf, and a row of those nan."""
    return max(torch.finfo(dtype).min, torch.finfo(torch.float32).min)


def additive_mask(shown: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A bool mask in the form in which eager attention wants it."""
    return torch.zeros(shown.shape, dtype=dtype, device=shown.device).masked_fill_(~shown, lowest(dtype))


def check_both_ways(view: ModelView, mask: Any) -> None:
    """Refuse a mask of the model's that cannot say that tokens see each other both ways.

    Raises:
        UnsupportedModel: it cannot.
    """
    if not isinstance(mask, torch.Tensor) or mask.ndim != 4:
        kernel = view.language_model.config._attn_implementation
        raise UnsupportedModel(
            f"visual tokens of {view.family.title} see each other both ways, which attn_implementation={kernel!r} "
            "cannot express; load the model with 'sdpa' or 'eager'"
        )


def ready_mask(view: ModelView, hidden: torch.Tensor, mask: Any, cache: Any, blocks: torch.Tensor | None) -> Any:
    """4-D masks for all layers, in the form in which the base model hands them over; arguments as `causal_mask`."""
    kinds = {view.layer_kind(index): index for index in reversed(range(view.depth))}
    made = {kind: causal_mask(view, hidden, mask, cache, index, blocks) for kind, index in kinds.items()}
    return made if len(made) > 1 else next(iter(made.values()))


def prompt_blocks(
    family: Family, types: torch.Tensor | None, valid: torch.Tensor | None, past: int, length: int
) -> torch.Tensor | None:
    """Which tokens of a forward see each other both ways, `[batch, length]`; None if attention is plainly causal.

    Args:
        types: `token_type_ids`, of this forward or of the whole conversation.
        valid: `[batch, length]` bool, False on padding; None if there is none.
        past: tokens of the conversation before.
    """
    if not family.bidirectional or types is None or (family.prefix and past > 0):
        return None
    blocks = token_blocks(types[:, -length:], family.prefix)
    return blocks if valid is None else torch.where(valid.to(blocks.device), blocks, -1)


def token_blocks(types: torch.Tensor, prefix: bool) -> torch.Tensor:
    """Which tokens see each other both ways, `[batch, seq]`, from their `token_type_ids`; -1 = none.

    Args:
        prefix: all of the prompt (type 0) is one block; else every run of visual tokens (type 1) is one.
    """
    if prefix:
        return torch.where(types == 0, 0, -1)
    visual = types == 1
    first = visual & ~torch.nn.functional.pad(visual, (1, 0))[:, :-1]
    return torch.where(visual, first.cumsum(1) - 1, -1)
