"""A read-only look at one run of the vision tower, and its signals mapped to the tokens the decoder sees."""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from seeless.core.family import ModelView
from seeless.core.units import NO_PATCH, Image
from seeless.errors import InputError
from seeless.ops.attention import attention_rows, received_attention, rotate
from seeless.ops.pooling import pool_blocks
from seeless.strategy import TowerStrategy

Side = tuple[int, int]


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
class VisionTap:
    """What one run of the tower showed: one layer's attention input, the projector's input, and the outcome.

    Args:
        layer: whose attention is read: the one that produced the features the projector takes.
        attention: its attention module.
        hidden: what that took in, `[pictures, patches, dim]`, or `[patches, dim]` of all pictures in one sequence.
        rotary: cos and sin `[patches, dim]` for towers with rotary embeddings.
        lengths: how the one sequence falls into pieces that attend to themselves only.
        seen: `[pictures, patches]` bool, False = padding of the picture; None if there is none.
        projected: what the projector took in.
        patches, tokens: (height, width) of every picture's grid in the tower, and in the decoder.
        features: `[tokens, dim]`, the features that enter the decoder, of all pictures, without newlines.
        merged: what became of the tokens, if they were merged inside the tower.
    """

    view: ModelView
    layer: int = -1
    attention: Any = None
    hidden: torch.Tensor | None = None
    rotary: tuple[torch.Tensor, torch.Tensor] | None = None
    lengths: list[int] | None = None
    seen: torch.Tensor | None = None
    projected: torch.Tensor | None = None
    patches: tuple[Side, ...] = ()
    tokens: tuple[Side, ...] = ()
    windows: torch.Tensor | None = None
    features: torch.Tensor | None = field(default=None, repr=False)
    merged: Merged | None = field(default=None, repr=False)

    @property
    def count(self) -> int:
        """Tokens of all pictures."""
        return sum(height * width for height, width in self.tokens)

    def keep_features(self, features: list[torch.Tensor], images: list[Image]) -> None:
        """Note what enters the decoder for every token that shows patches."""
        source = torch.cat([image.source for image in images])
        flat = torch.cat([feature.detach().flatten(0, -2) for feature in features])
        self.features = flat.new_zeros(self.count, flat.shape[-1])
        self.features[source[source != NO_PATCH]] = flat[source != NO_PATCH]

    # Patches: everything `[patches of all pictures, ...]`.

    def project(self, name: str) -> torch.Tensor:
        """Queries or keys `[patches, heads, head_dim]`, rotated if the tower rotates, class tokens included."""
        if self.hidden is None:
            raise InputError(
                "this strategy reads the vision tower, but none of its layers produced these features; "
                "set vision_feature_layer to the output of a layer"
            )
        flat = self.hidden.detach().flatten(0, -2)
        heads = self.heads
        if (fused := getattr(self.attention, "qkv", None)) is not None:
            projected = fused(flat).view(len(flat), 3, heads, -1)[:, "qk".index(name)]
        else:
            projected = getattr(self.attention, f"{name}_proj")(flat)
            if (norm := getattr(self.attention, f"{name}_norm", None)) is not None:
                projected = norm(projected)
            projected = projected.view(len(flat), heads, -1)
        if self.rotary is None:
            return projected
        cos, sin = (x.detach().flatten(0, -2).float()[None] for x in self.rotary)
        return rotate(projected.float().transpose(0, 1)[None], cos, sin)[0].transpose(0, 1).to(projected.dtype)

    @property
    def heads(self) -> int:
        return self.attention.num_heads if hasattr(self.attention, "num_heads") else self.view.tower_heads

    @property
    def _scaling(self) -> float:
        return self.attention.scaling if hasattr(self.attention, "scaling") else self.attention.scale

    def _pieces(self, flat: int) -> list[torch.Tensor]:
        """Patches that attend to each other: `[pieces, patches]` for every length of piece there is."""
        assert self.hidden is not None
        device = self.hidden.device
        lengths = self.lengths
        if lengths is None:
            lengths = [flat // len(self.patches)] * len(self.patches)
            if self.hidden.ndim == 2 or (self.hidden.shape[0] == 1 and len(self.patches) > 1):
                lengths = [height * width for height, width in self.patches]
        if sum(lengths) != flat:
            raise InputError(f"the vision tower saw {flat} patches, but its pictures have {sum(lengths)}")
        groups, start = defaultdict(list), 0
        for length in lengths:
            groups[length].append(torch.arange(start, start + length, device=device))
            start += length
        return [torch.stack(pieces) for pieces in groups.values()]

    def _attention(self) -> torch.Tensor:
        """`[patches, heads]`: from the class token, or from all patches of the piece on average; class tokens out."""
        query, keys = self.project("q"), self.project("k")
        result = torch.zeros(len(keys), self.heads, device=keys.device)
        for piece in self._pieces(len(keys)):
            own_keys = keys[piece].transpose(1, 2)
            seen = None if self.seen is None else self.seen.flatten()[piece]
            if self.view.has_class_token:
                columns = torch.arange(piece.shape[1], device=keys.device).expand(len(piece), -1)
                class_query = query[piece[:, :1]].transpose(1, 2)
                weights = attention_rows(class_query, own_keys, self._scaling, None, columns)[:, :, 0]
            else:
                weights = received_attention(query[piece].transpose(1, 2), own_keys, self._scaling, seen)
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
        return self._to_tokens(self._attention())

    @cached_property
    def token_keys(self) -> torch.Tensor:
        """`[tokens, heads, head_dim]`."""
        return self._to_tokens(self._without_class_tokens(self.project("k")))

    @cached_property
    def token_features(self) -> torch.Tensor:
        """`[tokens, dim]`: what the projector took in, or where that is not one vector per token, what it gave."""
        if not self.view.family.projected:
            assert self.features is not None
            return self.features
        if self.projected is None:
            raise InputError("the projector did not run, so nothing is known about the features it took in")
        taken, (height, width) = self.projected.detach(), self.patches[0]
        if self.view.has_class_token and taken.ndim == 3 and taken.shape[1] == height * width + 1:
            taken = taken[:, 1:]
        return taken.flatten(0, -2)

    @property
    def signal(self) -> str:
        """What `token_attention` is, in words."""
        merged = "" if self.patches == self.tokens else ", averaged over the patches of a token"
        if self.view.has_class_token:
            return f"the class token's attention in tower layer {self.layer}{merged}"
        return f"the mean attention received in tower layer {self.layer} (no class token){merged}"


@dataclass
class Vision:
    """The tower's runs of one forward as one table: everything `[tokens, ...]`."""

    taps: list[VisionTap]

    @cached_property
    def attention(self) -> torch.Tensor:
        return torch.cat([tap.token_attention for tap in self.taps])

    @cached_property
    def features(self) -> torch.Tensor:
        return torch.cat([tap.token_features for tap in self.taps])

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

    @property
    def signal(self) -> str:
        return " and ".join(dict.fromkeys(tap.signal for tap in self.taps))


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
