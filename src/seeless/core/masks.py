"""Attention masks in the form in which the model's own kernel wants them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.masking_utils import create_causal_mask

from seeless.core.cache import cached_length
from seeless.core.family import ModelView
from seeless.core.host import CACHE, mask_form, version
from seeless.errors import UnsupportedModel


def causal_mask(
    view: ModelView,
    hidden: torch.Tensor,
    mask: torch.Tensor | None,
    cache: Any,
    layer: int,
    blocks: torch.Tensor | None = None,
    places: torch.Tensor | None = None,
) -> Any:
    """The mask the model's own attention kernel wants for `hidden` at this layer; of a recurrent layer, see
    `recurrent_mask`.

    Args:
        mask: 2-D, `[batch, past + slots]`, with padding in it; None = all visible.
        blocks: `[batch, slots]`, tokens of one block see each other both ways, in the layers that do so; None = plainly
            causal.
        places: `[batch, past + slots]`, where in the conversation everything stands, by which layers with a window
            look back; None = nothing is out of their reach.

    Raises:
        UnsupportedModel: the kernel takes no mask that could express the blocks or the window.
    """
    if not view.attends(layer):
        return recurrent_mask(mask, hidden)
    blocks = blocks if view.sees_both_ways(layer) else None
    if places is not None and view.slides(layer):
        return _windowed_mask(view, hidden, mask, cache, layer, blocks, places)
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


def _windowed_mask(
    view: ModelView,
    hidden: torch.Tensor,
    mask: torch.Tensor | None,
    cache: Any,
    layer: int,
    blocks: torch.Tensor | None,
    places: torch.Tensor,
) -> torch.Tensor:
    """The mask of a layer that looks back a window of the conversation, whatever of it has left; arguments as above.

    The model's own mask makers count columns, and so reach too far back where tokens between have left.
    """
    device, queries, counted = hidden.device, hidden.shape[1], places.shape[1]
    # Of the columns that the layer has counted, its cache hands over `length` from `first` on, or room for more.
    length, first = (counted, 0) if cache is None else cache.get_mask_sizes(queries, layer)
    column = torch.arange(first, first + length, device=device)
    asking = torch.arange(counted - queries, counted, device=device)[:, None]

    def of_keys(x: torch.Tensor, rest: int) -> torch.Tensor:
        return nn.functional.pad(x.to(device), (0, max(0, first + length - counted)), value=rest)[:, first:][:, None]

    assert view.window is not None
    places = places.to(device)
    seen = column <= asking
    if blocks is not None:
        own = nn.functional.pad(blocks.to(device), (counted - queries, 0), value=-1)
        mine = own[:, -queries:, None]
        together = (of_keys(own, -1) == mine) & (mine >= 0)
    if blocks is not None and not view.family.prefix:
        seen = seen | together
    seen = seen & (of_keys(places, 0) > places[:, -queries:, None] - view.window)
    if blocks is not None and view.family.prefix:  # a prompt that sees itself does so past any window
        seen = seen | together
    if mask is not None:
        seen = seen & of_keys(mask.bool(), 0)
    form = mask_form(kernel := view.language_model.config._attn_implementation)
    if form == "columns" and queries == 1:
        return seen[:, 0]
    if form not in ("seen", "added"):
        raise UnsupportedModel(
            f"layers of this {view.family.title} model look back {view.window} tokens of the conversation "
            f"(sliding_window), of which some have left, for which attn_implementation={kernel!r} takes no mask; load "
            "the model with 'sdpa' or 'eager', or keep the conversation within the window"
        )
    return seen[:, None] if form == "seen" else additive_mask(seen[:, None], hidden.dtype)


def lowest(dtype: torch.dtype) -> float:
    """What eager attention adds where nothing is to be seen. Its softmax is taken in float32, where the smallest
    float64 is -inf, and a row of those nan."""
    return max(torch.finfo(dtype).min, torch.finfo(torch.float32).min)


def additive_mask(shown: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A bool mask in the form in which eager attention wants it."""
    return torch.zeros(shown.shape, dtype=dtype, device=shown.device).masked_fill_(~shown, lowest(dtype))


def is_plain(mask: Any) -> bool:
    """Whether an attention mask is the 2-D one that users give, or none."""
    return mask is None or (isinstance(mask, torch.Tensor) and mask.ndim == 2)


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


def of_all_layers(view: ModelView, make: Callable[[int], Any]) -> Any:
    """Masks for all layers, in the form in which base models hand them over; `make` gives that of a layer."""
    kinds = {view.layer_kind(index): index for index in reversed(range(view.depth))}
    made = {kind: make(index) for kind, index in kinds.items()}
    return made if len(made) > 1 else next(iter(made.values()))


def check_made(view: ModelView, given: Any, made: Any, valid: torch.Tensor | None, length: int) -> None:
    """Compare masks that the base model made itself with those made here for the same tokens. Waits for the device.

    Args:
        given, made: one for all layers, or by their kind; None = plainly causal.
        valid: `[batch, length]` bool, False on padding, whose sight does not matter; None if there is none.
        length: tokens of this forward, the first of a conversation.

    Raises:
        UnsupportedModel: they differ: the model lets tokens see each other in a way unknown here.
    """
    kinds = {view.layer_kind(index) for index in range(view.depth)}
    for kind in sorted(kinds):
        theirs, ours = (x.get(kind) if isinstance(x, dict) else x for x in (given, made))
        if not _alike(theirs, ours, valid, length):
            raise UnsupportedModel(
                f"{type(view.base).__name__} of transformers {version()} masks its layers of kind {kind!r} as seeless "
                f"does not expect of {view.family.title}, so answers under a handle would be wrong; please report this "
                "sentence with your model's config.json"
            )


def _alike(theirs: Any, ours: Any, valid: torch.Tensor | None, length: int) -> bool:
    given = [mask for mask in (theirs, ours) if mask is not None]
    if not given:
        return True
    if not all(isinstance(mask, torch.Tensor) and mask.ndim == 4 for mask in given):
        return False
    # A static cache has room for more; what is left to the kernel is plainly causal.
    seen = [(mask if mask.dtype == torch.bool else mask == 0)[..., :length] for mask in given]
    if len(seen) == 1:
        seen.append(torch.ones(length, length, dtype=torch.bool, device=seen[0].device).tril())
    alike = seen[0] == seen[1].to(seen[0].device)
    return bool((alike if valid is None else alike | ~valid[:, None, :, None].to(alike.device)).all())


def prompt_blocks(
    view: ModelView, types: torch.Tensor | None, valid: torch.Tensor | None, past: int, length: int
) -> torch.Tensor | None:
    """Which tokens of a forward see each other both ways, `[batch, length]`; None if attention is plainly causal.

    Args:
        types: the family's `token_types`, of this forward or of the whole conversation.
        valid: `[batch, length]` bool, False on padding; None if there is none.
        past: tokens of the conversation before.
    """
    if not view.both_ways or types is None or (view.family.prefix and past > 0):
        return None
    own = types[:, -length:]
    blocks = torch.where(own == 1, 0, -1) if view.family.both_ways_joined else token_blocks(own, view.family.prefix)
    return blocks if valid is None else torch.where(valid.to(blocks.device), blocks, -1)


def token_blocks(types: torch.Tensor, prefix: bool) -> torch.Tensor:
    """Which tokens see each other both ways, `[batch, seq]`, from their types; -1 = none.

    Args:
        prefix: all of the prompt (type 0) is one block; else every run of visual tokens (image 1, video 2) is one.
    """
    if prefix:
        return torch.where(types == 0, 0, -1)
    visual = (types == 1) | (types == 2)
    first = visual & ~torch.nn.functional.pad(visual, (1, 0))[:, :-1]
    return torch.where(visual, first.cumsum(1) - 1, -1)
