"""A read-only look at one run of the vision tower, and its signals mapped to the tokens the decoder sees."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers.vision_utils import get_vision_window_index

from seeless.core.attention import read_nothing
from seeless.core.checks import Findings
from seeless.core.family import ModelView
from seeless.core.images import NO_PATCH, Image, Side
from seeless.core.patches_left import Left
from seeless.core.pooling_head import head_of, through_head
from seeless.core.tower_attention import AttentionTap, in_one
from seeless.core.tower_looks import Looks
from seeless.core.transfer import upload
from seeless.errors import InputError
from seeless.ops.pooling import pool_blocks
from seeless.strategy import TowerStrategy
from seeless.tower import Asking, TowerSignal

ENCODE_AGAIN = (
    "this strategy asks the vision tower for something that was not asked for when these image features were first "
    "used, and its states have been given up since; pass pixel_values, or call get_image_features again"
)


@dataclass(frozen=True)
class Merged:
    """What merging made of the tokens of one run of the tower.

    Args:
        strategy: who decided.
        group: `[tokens]` of all pictures, the number of the token that carries each one's group.
        seen: per picture, the patches that each layer of the tower saw.
        findings: what is wrong with its decisions.
    """

    strategy: TowerStrategy
    group: torch.Tensor
    seen: list[list[int]]
    findings: Findings


@dataclass
class VisionTap:
    """What one run of the tower showed: two layers' attention, the projector's input, and the outcome.

    States are noted if some strategy may ask for them, and given up after the prefill that used them. What was computed
    from them stays, so that features that were encoded ahead can be used again.

    Args:
        looks: at what layers of the tower strategies look.
        reads: what strategies may ask for; None = anything.
        made: the attention of the layer that produced the features the projector takes.
        reader: that of the layer after it, which takes the same features in; None where it is the tower's last.
        seen: `[pictures, patches]` bool, False = padding of the picture; None if there is none.
        room: patches the tower took in of every picture, where padding behind its own filled it up; None if none did.
        projected: what the projector took in, with its gradient.
        skipped: layers at the tower's end that did not run, since nobody reads them.
        class_token: `[pictures, dim]`, the tower's class token at the same depth, with its gradient; None without one.
        taken: shape of what the layer that made the features took in, class tokens included, or else the projector.
        entered: (height, width) of every picture's grid where it enters the tower.
        patches, tokens: the same in the layer that made the features, and in the decoder.
        frames: of every picture, of how many frames of a video it is made behind the layers; None if of one each.
        grids: `[videos or images, 3]`, frames, height and width, where the model is given them.
        given: what enters the decoder: one tensor `[images, ..., dim]`, or one per image; None if nobody may ask.
        source: of every token that enters, the place among those of all pictures that show patches; `NO_PATCH`.
        merged: what became of the tokens, if they were merged inside the tower, or left there.
        width: of what the projector took in.
        came_out: tokens that the projector gave.
        asked: whether the features were asked for.
        over: whether a prefill has used it, and states were given up.
        trained: whether those had a gradient.
        found: what was computed of the layers that were looked at, by what was asked.
    """

    view: ModelView
    looks: Looks
    reads: frozenset[TowerSignal] | None = None
    made: AttentionTap | None = None
    reader: AttentionTap | None = None
    seen: torch.Tensor | None = None
    projected: torch.Tensor | None = None
    class_token: torch.Tensor | None = None
    taken: torch.Size | None = None
    entered: tuple[Side, ...] = ()
    room: int | None = None
    skipped: int = 0
    patches: tuple[Side, ...] = ()
    tokens: tuple[Side, ...] = ()
    frames: list[int] | None = None
    grids: np.ndarray | None = None
    given: Any = field(default=None, repr=False)
    source: np.ndarray | None = field(default=None, repr=False)
    merged: Merged | Left | None = field(default=None, repr=False)
    width: int = 0
    came_out: int = 0
    asked: bool = False
    over: bool = False
    trained: bool = False
    found: dict = field(default_factory=dict, repr=False)

    def may_read(self, *signals: TowerSignal) -> bool:
        """Whether any of these may be asked for."""
        return self.reads is None or not self.reads.isdisjoint(signals)

    @property
    def sizes(self) -> list[int]:
        """Patches of every picture, of all its frames, padding behind them included."""
        frames = self.frames or [1] * len(self.patches)
        return [self.room or n * height * width for n, (height, width) in zip(frames, self.patches, strict=True)]

    @property
    def count(self) -> int:
        """Tokens of all pictures."""
        return sum(height * width for height, width in self.tokens)

    def lay_out(self, grids: tuple[Side, ...]) -> None:
        """Note the patch grids of all pictures, as they enter the tower."""
        self.entered = self.patches = grids
        if self.view.family.merging_layer is not None and self.taken is not None:
            seen, total = self.taken[:-1].numel(), sum(height * width for height, width in grids)
            if 4 * seen == total:
                self.patches = tuple((height // 2, width // 2) for height, width in grids)

    @property
    def sides(self) -> list[Side]:
        """(height, width) of every picture as it enters the tower, its frames one below the other; of one row where
        padding, which has no place in the picture, fills it up."""
        if self.frames is not None:
            return [(n * height, width) for n, (height, width) in zip(self.frames, self.patches, strict=True)]
        return list(self.entered or self.patches) if self.room is None else [(1, self.room)] * len(self.patches)

    @property
    def per_layer(self) -> list[list[int]]:
        """Of every picture, the patches that each layer of the tower saw, if a strategy did not merge any."""
        name, layers = self.view.family.merging_layer, len(self.view.tower_layers("image"))
        first = layers if name is None else getattr(self.view.config.vision_config, name) + 1
        sizes = zip(self.sides, self.sizes, strict=True)
        return [[h * w] * first + [size] * (layers - first) for (h, w), size in sizes]

    @property
    def projected_tokens(self) -> list[int]:
        """Per picture, the tokens that the projector gave: class tokens, and tokens that are pooled later, included;
        without those that only fill a picture up to the size of another."""
        own = [height * width for height, width in self.tokens]
        if self.view.family.padded or sum(own) == self.came_out:
            return own
        return [self.came_out // len(own)] * len(own)

    @property
    def in_one_sequence(self) -> bool:
        """Whether the attention of all pictures is computed together, with a mask between them. Towers that are given
        grids keep pictures apart by these."""
        if self.taken is None or self.grids is not None:
            return False
        flash = "flash" in str(self.view.config.vision_config._attn_implementation)
        return len(self.taken) == 3 and self.taken[0] < len(self.patches) and not flash

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
        order = np.full(self.count, len(flat))  # a patch of a tile's padding, which the model cut away: zeros
        order[self.source[shown]] = shown
        return torch.cat([flat, flat.new_zeros(1, flat.shape[-1])])[upload([order], flat.device)[0]]

    def release(self) -> None:
        """Give up states: a prefill has used this run of the tower."""
        if self.over:
            return
        for tap in (self.made, self.reader):
            if tap is not None:
                tap.calls = []
        self.looks.release()
        states = [x for x in (self.projected, self.class_token) if x is not None]
        self.over, self.trained = True, any(x.requires_grad for x in states)
        self.projected = self.projected.detach() if self.asked and self.projected is not None else None
        self.class_token = None if self.class_token is None else self.class_token.detach()
        if not self.asked:
            self.given = None

    # Patches: everything `[patches of all pictures, ...]`.

    def _opened(self, tap: AttentionTap | None) -> AttentionTap:
        if tap is None and not self.view.family.tower_layers:
            raise self.view.refuse_unread()
        if tap is None:
            raise InputError(
                "this strategy reads the vision tower, but none of its layers produced these features; "
                "set vision_feature_layer to the output of a layer"
            )
        if not tap.calls and self.over:
            raise InputError(ENCODE_AGAIN)
        if not tap.calls:
            raise read_nothing(self.view.tower_layers("image")[tap.layer])
        if self.view.family.padded:
            return tap.unpadded([height * width for height, width in self.patches])
        return tap

    def _attention(self, tap: AttentionTap, queries: Asking | None = None) -> torch.Tensor:
        """`[patches, heads]`: from the class token, or from all patches of the piece on average; class tokens out."""
        lead, pieces = int(self.view.has_class_token), self.sizes
        if self.frames is not None and not self.view.family.frames_attend:
            pieces = [h * w for n, (h, w) in zip(self.frames, self.patches, strict=True) for _ in range(n)]
        if isinstance(self.merged, Left):
            states = sum(call.key.shape[0] * call.key.shape[2] for call in tap.calls)
            pieces = self.merged.sizes_of(states, pieces, lead)
        return self._patches_alone(tap.attention([size + lead for size in pieces], self.seen, queries))

    def _patches_alone(self, patches: torch.Tensor) -> torch.Tensor:
        """Without class tokens and padding behind patches; of frames that become one, the mean; 0 for what left."""
        if isinstance(self.merged, Left):
            return self.merged.whole(patches, self.sizes, int(self.view.has_class_token))
        if self.frames is not None:
            parts = zip(patches.split(self.sizes), self.frames, strict=True)
            return torch.cat([part.unflatten(0, (n, -1)).mean(0) for part, n in parts])
        if self.view.has_class_token:
            return patches.view(len(self.patches), -1, *patches.shape[1:])[:, 1:].flatten(0, 1)
        if self.room is None:
            return patches
        own = [self.room * i + np.arange(height * width) for i, (height, width) in enumerate(self.patches)]
        return patches[upload([np.concatenate(own)], patches.device)[0]]

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
        return self._to_tokens(self._attention(self._opened(self.made)))

    @cached_property
    def token_keys(self) -> torch.Tensor:
        """`[tokens, heads, head_dim]`."""
        return self._to_tokens(self._patches_alone(self._opened(self.made).keys()))

    @cached_property
    def reader_attention(self) -> torch.Tensor:
        """`[tokens]`, float32: of the layer that reads the features, as if it had one head of its whole width."""
        tap = self._opened(self.reader or self.made)
        return self._to_tokens(self._attention(tap.joined()))[:, 0]

    @cached_property
    def reader_keys(self) -> torch.Tensor:
        """`[tokens, width]`, of the same layer."""
        keys = self._opened(self.reader or self.made).joined().keys()[:, 0]
        return self._to_tokens(self._patches_alone(keys))

    # Layers that were looked at, and the pooling head.

    def _remembered(self, key: tuple, compute: Callable[[], Any]) -> Any:
        if key not in self.found:
            self.found[key] = compute()
        return self.found[key]

    def looked_attention(self, layer: int, queries: Asking) -> torch.Tensor:
        """`[tokens, heads]`, float32: of the layer that stands for `layer`."""
        tap = self.looks.tap(layer, queries)
        if tap is None:
            raise InputError(ENCODE_AGAIN)
        return self._remembered((queries, layer), lambda: self._to_tokens(self._attention(self._opened(tap), queries)))

    def looked_signal(self, layer: int, queries: Asking) -> str:
        """What `looked_attention` is, in words."""
        return self._in_words("", self.looks.tower.attention_at(layer), "", queries)

    def _hidden(self, layer: int) -> torch.Tensor:
        """`[patches, width]`, what a layer gave."""
        if not (states := self.looks.states.get(layer)):
            raise InputError(ENCODE_AGAIN)
        if self.view.family.padded:
            (whole,) = states
            states = [own[: height * width] for own, (height, width) in zip(whole, self.patches, strict=True)]
        return self._patches_alone(in_one([x.flatten(0, -2) for x in states]))

    def looked_hidden(self, layer: int) -> torch.Tensor:
        """`[tokens, width]`, what a layer gave."""
        return self._remembered(("hidden", layer), lambda: self._to_tokens(self._hidden(layer)))

    def pooling(self, siglip: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        """`[tokens, heads]`, attention of the pooling head's probe, float32, and `[tokens, width]`, what the head gave
        of each token's picture."""

        if isinstance(self.merged, Left):
            raise InputError(f"the pooling head pools whole pictures, of which {self.merged.strategy.name} left a part")

        def compute() -> tuple[torch.Tensor, torch.Tensor]:
            states, sizes = self._hidden(self.looks.tower.made), [height * width for height, width in self.patches]
            attention, vectors = through_head(head_of(self.view, siglip, states.device), states.split(sizes))
            picture = np.repeat(np.arange(len(sizes)), [height * width for height, width in self.tokens])
            return self._to_tokens(attention), vectors[upload([picture], vectors.device)[0]]

        return self._remembered(("pooling", siglip), compute)

    def _check_gradient(self) -> None:
        if self.over and self.trained and torch.is_grad_enabled():
            raise InputError(ENCODE_AGAIN)

    def features_with_gradient(self) -> torch.Tensor:
        """`[tokens, dim]`: what the projector took in, or where that is not one vector per token, what it gave."""
        projected = self.view.family.projected
        taken = self.projected if projected else self.features if self.given is not None else None
        if taken is None and self.over:
            raise InputError(ENCODE_AGAIN)
        if taken is None:
            raise InputError("the projector did not run, so nothing is known about the features it took in")
        self.asked = True
        if not projected:
            return taken
        self._check_gradient()
        height, width = self.patches[0]
        if self.view.has_class_token and taken.ndim == 3 and taken.shape[1] == height * width + 1:
            taken = taken[:, 1:]
        return taken.flatten(0, -2)

    def class_tokens_with_gradient(self) -> torch.Tensor | None:
        """`[pictures, dim]` of the space of the features; None where the projector cannot take class tokens."""
        self._check_gradient()
        own = self.class_token
        fits = self.view.family.projected and own is not None and own.shape[-1] == self.width
        return own if fits else None

    @property
    def signal(self) -> str:
        """What `token_attention` is, in words."""
        assert self.made is not None
        return self._in_words("", self.made.layer, "")

    @property
    def reader_signal(self) -> str:
        """What `reader_attention` is, in words."""
        tap = self.reader or self.made
        assert tap is not None
        role = ", which reads the features" if self.reader else ", which made the features (none reads them)"
        return self._in_words("single-head ", tap.layer, role)

    def _in_words(self, kind: str, layer: int, role: str, queries: Asking | None = None) -> str:
        merged = "" if self.patches == self.tokens else ", averaged over the patches of a token"
        if self.view.has_class_token and queries != "all":
            return f"the class token's {kind}attention in tower layer {layer}{role}{merged}"
        without = "" if self.view.has_class_token else " (no class token)"
        return f"the mean {kind}attention received in tower layer {layer}{role}{without}{merged}"
