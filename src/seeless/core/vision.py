"""A read-only look at one run of the vision tower, and its signals mapped to the tokens the decoder sees."""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers.vision_utils import get_vision_window_index

from seeless.core.family import ModelView
from seeless.core.images import NO_PATCH, Image, Side
from seeless.core.sharding import check_whole
from seeless.core.transfer import upload
from seeless.errors import InputError
from seeless.ops.attention import attention_rows, received_attention, rotate
from seeless.ops.pooling import pool_blocks
from seeless.strategy import TowerStrategy


@dataclass(frozen=True)
class Merged:
    """What merging made of the tokens of one run of the tower.

    Args:
        strategy: who decided.
        group: `[tokens]` of all pictures, the number of the token that carries each one's group.
        seen: per picture, the patches that each layer of the tower saw.
    """

    strategy: TowerStrategy
    group: torch.Tensor
    seen: list[list[int]]


@dataclass
class AttentionTap:
    """What the attention of one tower layer took in.

    Args:
        layer: its number.
        module: the attention module.
        hidden: `[pictures, patches, dim]`, or `[patches, dim]` of all pictures in one sequence.
        rotary: cos and sin `[patches, dim]` for towers with rotary embeddings.
        lengths: how the one sequence falls into pieces that attend to themselves only.
    """

    layer: int
    module: Any
    hidden: torch.Tensor | None = None
    rotary: tuple[torch.Tensor, torch.Tensor] | None = None
    lengths: list[int] | None = None


@dataclass
class VisionTap:
    """What one run of the tower showed: two layers' attention input, the projector's input, and the outcome.

    Args:
        made: the attention of the layer that produced the features the projector takes.
        reader: that of the layer after it, which takes the same features in; None where it is the tower's last.
        seen: `[pictures, patches]` bool, False = padding of the picture; None if there is none.
        projected: what the projector took in, with its gradient.
        class_token: `[pictures, dim]`, the tower's class token at the same depth, with its gradient; None without one.
        patches, tokens: (height, width) of every picture's grid in the tower, and in the decoder.
        grids: `[videos or images, 3]`, frames, height and width, where the model is given them.
        given: what enters the decoder: one tensor `[images, ..., dim]`, or one per image.
        source: of every token that enters, the place among those of all pictures that show patches; `NO_PATCH`.
        merged: what became of the tokens, if they were merged inside the tower.
    """

    view: ModelView
    kind: str = "image"
    made: AttentionTap | None = None
    reader: AttentionTap | None = None
    seen: torch.Tensor | None = None
    projected: torch.Tensor | None = None
    class_token: torch.Tensor | None = None
    patches: tuple[Side, ...] = ()
    tokens: tuple[Side, ...] = ()
    grids: np.ndarray | None = None
    given: Any = field(default=None, repr=False)
    source: np.ndarray | None = field(default=None, repr=False)
    merged: Merged | None = field(default=None, repr=False)

    @property
    def count(self) -> int:
        """Tokens of all pictures."""
        return sum(height * width for height, width in self.tokens)

    def describe(self, images: list[Image]) -> None:
        """Note where the tokens of every picture are among what enters the decoder."""
        self.source = np.concatenate([image.source for image in images])

    @cached_property
    def windows(self) -> torch.Tensor | None:
        """Where the tower puts each token when it orders them by attention windows; None if it does not."""
        if not self.view.family.windows:
            return None
        assert self.grids is not None
        known, key = self.view.packed, ("windows", self.grids.tobytes())
        if key not in known:
            size, grids = self.view.config.vision_config, torch.from_numpy(self.grids)
            known[key] = get_vision_window_index(grids, size.spatial_merge_size, size.window_size, size.patch_size)[0]
        return known[key]

    @cached_property
    def features(self) -> torch.Tensor:
        """`[tokens, dim]`, the features that enter the decoder, of all pictures, without newlines."""
        assert self.source is not None
        flat = torch.cat([feature.detach().flatten(0, -2) for feature in self.given])
        shown = np.flatnonzero(self.source != NO_PATCH)
        order = np.empty(len(shown), dtype=np.int64)
        order[self.source[shown]] = shown
        return flat[upload([order], flat.device)[0]]

    # Patches: everything `[patches of all pictures, ...]`.

    def _opened(self, tap: AttentionTap | None) -> AttentionTap:
        if tap is None or tap.hidden is None:
            raise InputError(
                "this strategy reads the vision tower, but none of its layers produced these features; "
                "set vision_feature_layer to the output of a layer"
            )
        return tap

    def project(self, name: str, tap: AttentionTap) -> torch.Tensor:
        """Queries or keys `[patches, heads, head_dim]`, rotated if the tower rotates, class tokens included."""
        assert tap.hidden is not None
        flat, module = tap.hidden.flatten(0, -2), tap.module
        heads = module.num_heads if hasattr(module, "num_heads") else self.view.tower_heads
        fused = getattr(module, "qkv", None)
        projection = getattr(module, f"{name}_proj") if fused is None else fused
        check_whole(projection)
        projected = projection(flat)
        if fused is not None:
            projected = projected.view(len(flat), 3, heads, -1)[:, "qk".index(name)]
        else:
            if (norm := getattr(module, f"{name}_norm", None)) is not None:
                projected = norm(projected)
            projected = projected.view(len(flat), heads, -1)
        if tap.rotary is None:
            return projected
        cos, sin = (x.detach().flatten(0, -2).float()[None] for x in tap.rotary)
        return rotate(projected.float().transpose(0, 1)[None], cos, sin)[0].transpose(0, 1).to(projected.dtype)

    def _pieces(self, tap: AttentionTap) -> list[torch.Tensor]:
        """Patches that attend to each other: `[pieces, patches]` for every length of piece there is."""
        assert tap.hidden is not None
        device, flat, lengths = tap.hidden.device, tap.hidden.shape[:-1].numel(), tap.lengths
        if lengths is None:
            lengths = [flat // len(self.patches)] * len(self.patches)
            if tap.hidden.ndim == 2 or (tap.hidden.shape[0] == 1 and len(self.patches) > 1):
                lengths = [height * width for height, width in self.patches]
        if sum(lengths) != flat:
            raise InputError(f"the vision tower saw {flat} patches, but its pictures have {sum(lengths)}")
        groups, start = defaultdict(list), 0
        for length in lengths:
            groups[length].append(torch.arange(start, start + length, device=device))
            start += length
        return [torch.stack(pieces) for pieces in groups.values()]

    def _attention(self, tap: AttentionTap, query: torch.Tensor, keys: torch.Tensor, scaling: float) -> torch.Tensor:
        """`[patches, heads]`: from the class token, or from all patches of the piece on average; class tokens out."""
        result = torch.zeros(keys.shape[:2], device=keys.device)
        for piece in self._pieces(tap):
            own_keys = keys[piece].transpose(1, 2)
            seen = None if self.seen is None else self.seen.flatten()[piece]
            if self.view.has_class_token:
                columns = torch.arange(piece.shape[1], device=keys.device).expand(len(piece), -1)
                class_query = query[piece[:, :1]].transpose(1, 2)
                weights = attention_rows(class_query, own_keys, scaling, None, columns)[:, :, 0]
            else:
                weights = received_attention(query[piece].transpose(1, 2), own_keys, scaling, seen)
            result[piece] = weights.transpose(1, 2)
        return self._without_class_tokens(result)

    def _without_class_tokens(self, patches: torch.Tensor) -> torch.Tensor:
        if not self.view.has_class_token:
            return patches
        return patches.view(len(self.patches), -1, *patches.shape[1:])[:, 1:].flatten(0, 1)

    # Tokens: everything `[tokens of all pictures, ...]`.

    def _to_tokens(self, patches: torch.Tensor) -> torch.Tensor:
        """The mean over the patches that make a token; `patches` `[patches, ...]`."""
        if self.patches == self.tokens:
            return patches
        if self.view.family.merged == "consecutive":
            merged = patches.unflatten(0, (self.count, -1)).mean(1)
            return merged if self.windows is None else merged[self.windows.argsort().to(merged.device)]
        sizes = [height * width for height, width in self.patches]
        flat = patches.flatten(1)
        parts = flat.split(sizes)
        pooled = [pool_blocks(x, p, t) for x, p, t in zip(parts, self.patches, self.tokens, strict=True)]
        return torch.cat(pooled).unflatten(1, patches.shape[1:])

    @cached_property
    def token_attention(self) -> torch.Tensor:
        """`[tokens, heads]`, float32."""
        tap = self._opened(self.made)
        scaling = tap.module.scaling if hasattr(tap.module, "scaling") else tap.module.scale
        return self._to_tokens(self._attention(tap, self.project("q", tap), self.project("k", tap), scaling))

    @cached_property
    def token_keys(self) -> torch.Tensor:
        """`[tokens, heads, head_dim]`."""
        return self._to_tokens(self._without_class_tokens(self.project("k", self._opened(self.made))))

    @cached_property
    def reader_attention(self) -> torch.Tensor:
        """`[tokens]`, float32: of the layer that reads the features, as if it had one head of its whole width."""
        tap = self._opened(self.reader or self.made)
        query, keys = (self.project(name, tap).flatten(1)[:, None] for name in "qk")
        return self._to_tokens(self._attention(tap, query, keys, keys.shape[-1] ** -0.5))[:, 0]

    @cached_property
    def reader_keys(self) -> torch.Tensor:
        """`[tokens, width]`, of the same layer."""
        keys = self.project("k", self._opened(self.reader or self.made)).flatten(1)
        return self._to_tokens(self._without_class_tokens(keys))

    def features_with_gradient(self) -> torch.Tensor:
        """`[tokens, dim]`: what the projector took in, or where that is not one vector per token, what it gave."""
        if not self.view.family.projected:
            return self.features
        if self.projected is None:
            raise InputError("the projector did not run, so nothing is known about the features it took in")
        taken, (height, width) = self.projected, self.patches[0]
        if self.view.has_class_token and taken.ndim == 3 and taken.shape[1] == height * width + 1:
            taken = taken[:, 1:]
        return taken.flatten(0, -2)

    def class_tokens_with_gradient(self) -> torch.Tensor | None:
        """`[pictures, dim]` of the space of the features; None where the projector cannot take class tokens."""
        taken, own = self.projected, self.class_token
        fits = self.view.family.projected and own is not None and taken is not None
        return own if fits and own.shape[-1] == taken.shape[-1] else None  # type: ignore[union-attr]

    @property
    def signal(self) -> str:
        """What `token_attention` is, in words."""
        return self._in_words("", self._opened(self.made).layer, "")

    @property
    def reader_signal(self) -> str:
        """What `reader_attention` is, in words."""
        tap = self._opened(self.reader or self.made)
        role = ", which reads the features" if self.reader else ", which made the features (none reads them)"
        return self._in_words("single-head ", tap.layer, role)

    def _in_words(self, kind: str, layer: int, role: str) -> str:
        merged = "" if self.patches == self.tokens else ", averaged over the patches of a token"
        if self.view.has_class_token:
            return f"the class token's {kind}attention in tower layer {layer}{role}{merged}"
        return f"the mean {kind}attention received in tower layer {layer}{role} (no class token){merged}"


@dataclass
class Vision:
    """The tower's runs of one forward as one table: everything `[tokens, ...]`."""

    taps: list[VisionTap]

    @cached_property
    def attention(self) -> torch.Tensor:
        return torch.cat([tap.token_attention for tap in self.taps])

    @cached_property
    def features(self) -> torch.Tensor:
        return self.features_with_gradient().detach()

    def features_with_gradient(self) -> torch.Tensor:
        return torch.cat([tap.features_with_gradient() for tap in self.taps])

    @cached_property
    def keys(self) -> torch.Tensor:
        return torch.cat([tap.token_keys for tap in self.taps])

    @cached_property
    def groups(self) -> torch.Tensor:
        parts, base = [], 0
        for tap in self.taps:
            if tap.merged is None:
                raise InputError("these image features were made without merging inside the tower; encode them again")
            parts.append(tap.merged.group + base)
            base += tap.count
        return torch.cat(parts)

    @cached_property
    def reader_attention(self) -> torch.Tensor:
        return torch.cat([tap.reader_attention for tap in self.taps])

    @cached_property
    def reader_keys(self) -> torch.Tensor:
        return torch.cat([tap.reader_keys for tap in self.taps])

    def class_tokens_with_gradient(self) -> torch.Tensor | None:
        """`[pictures, dim]`; None unless every run has them."""
        found = [own for tap in self.taps if (own := tap.class_tokens_with_gradient()) is not None]
        return torch.cat(found) if len(found) == len(self.taps) else None

    def picture(self, tokens: np.ndarray) -> np.ndarray:
        """The picture that each of some places in the table shows."""
        sizes = [height * width for tap in self.taps for height, width in tap.tokens]
        return np.searchsorted(np.cumsum(sizes), tokens, side="right")

    @property
    def signal(self) -> str:
        return " and ".join(dict.fromkeys(tap.signal for tap in self.taps))

    @property
    def reader_signal(self) -> str:
        return " and ".join(dict.fromkeys(tap.reader_signal for tap in self.taps))


def token_side(patches: Side, tokens: int) -> Side | None:
    """The grid of `tokens` tokens made from a grid of patches by merging squares; None if there is none.

    >>> token_side((24, 24), 576), token_side((32, 32), 256), token_side((27, 27), 196), token_side((4, 6), 7)
    ((24, 24), (16, 16), (14, 14), None)
    """
    height, width = patches
    if height * width == tokens:
        return patches
    ratio = max(1, round((height * width / max(1, tokens)) ** 0.5))
    for side in ((height // ratio, width // ratio), (-(-height // ratio), -(-width // ratio))):
        if side[0] * side[1] == tokens:
            return side
    return None
