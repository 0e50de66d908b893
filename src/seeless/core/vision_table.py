"""What the vision tower's runs of one forward tell a strategy, as one table of all visual tokens."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from seeless.core.patches_left import Left
from seeless.core.tower_attention import in_one
from seeless.core.vision import Merged, VisionTap
from seeless.errors import InputError
from seeless.strategy import Strategy
from seeless.tower import Asking, Look, Tower, TowerSignal


@dataclass
class Vision:
    """The tower's runs of one forward as one table: everything `[tokens, ...]`.

    Args:
        strategy: who asks; what it does not declare to read, it does not get.
    """

    taps: list[VisionTap]
    strategy: Strategy | None = None

    def asked_by(self, strategy: Strategy) -> "Vision":
        """The same for one strategy."""
        return Vision(self.taps, strategy)

    def release(self) -> None:
        """Give up states that nothing was computed from: the prefill is over."""
        for tap in self.taps:
            tap.release()

    def offers(self, signal: TowerSignal) -> bool:
        """Whether the strategy may ask for this."""
        declared = None if self.strategy is None else type(self.strategy).tower
        return declared is None or signal in declared

    def _check(self, signal: TowerSignal) -> None:
        if not self.offers(signal):
            assert self.strategy is not None
            declared = type(self.strategy).tower or ()
            name, more = type(self.strategy).__name__, (*declared, signal)
            raise InputError(
                f"{name} asks the vision tower for {signal!r}, but declares tower = {declared!r}, so nothing else of "
                f"it was kept; write tower = {more!r} in the class"
            )

    @cached_property
    def attention(self) -> torch.Tensor:
        self._check("attention")
        return in_one([tap.token_attention for tap in self.taps])

    @cached_property
    def features(self) -> torch.Tensor:
        return self.features_with_gradient().detach()

    def features_with_gradient(self) -> torch.Tensor:
        self._check("features")
        return in_one([tap.features_with_gradient() for tap in self.taps])

    @cached_property
    def keys(self) -> torch.Tensor:
        self._check("keys")
        return in_one([tap.token_keys for tap in self.taps])

    @property
    def tower(self) -> Tower:
        """What is known of the tower.

        Raises:
            InputError: its runs differ in that.
        """
        towers = {tap.looks.tower for tap in self.taps}
        if len(towers) > 1:
            raise InputError(
                "the images and videos of one forward went through vision towers, or up to layers, that differ; encode "
                "them with the same vision_feature_layer"
            )
        return towers.pop()

    def _check_look(self, look: Look) -> None:
        self._check("layers")
        self.tower.check(look)
        if self.strategy is None:
            return
        named = tuple(self.strategy.looks_into(self.tower))
        if look not in named:
            raise InputError(
                f"{type(self.strategy).__name__} asks the vision tower for {look!r}, but its looks_into names "
                f"{named!r}, so nothing else of the layers was kept; return {(*named, look)!r} there"
            )

    def looked_attention(self, layer: int, queries: Asking) -> torch.Tensor:
        """`[tokens, heads]`, float32, of a tower layer."""
        self._check_look((queries, layer))
        return in_one([tap.looked_attention(layer, queries) for tap in self.taps])

    def looked_signal(self, layer: int, queries: Asking) -> str:
        """What that is, in words."""
        return " and ".join(dict.fromkeys(tap.looked_signal(layer, queries) for tap in self.taps))

    def looked_hidden(self, layer: int) -> torch.Tensor:
        """`[tokens, width]`, what a tower layer gave."""
        self._check_look(("hidden", layer))
        return in_one([tap.looked_hidden(layer) for tap in self.taps])

    def pooling_attention(self, siglip: str | None) -> torch.Tensor:
        """`[tokens, heads]`, float32, of the probe of the pooling head."""
        self._check("pooling")
        return in_one([tap.pooling(siglip)[0] for tap in self.taps])

    def pooled(self, siglip: str | None) -> torch.Tensor:
        """`[tokens, width]`, what that head gives of each token's picture."""
        self._check("pooling")
        return in_one([tap.pooling(siglip)[1] for tap in self.taps])

    @cached_property
    def groups(self) -> torch.Tensor:
        parts, base = [], 0
        for tap in self.taps:
            if not isinstance(tap.merged, Merged):
                raise InputError("these image features were made without merging inside the tower; encode them again")
            parts.append(tap.merged.group + base)
            base += tap.count
        return torch.cat(parts)

    @cached_property
    def stays(self) -> torch.Tensor:
        left = [tap.merged for tap in self.taps if isinstance(tap.merged, Left)]
        if len(left) < len(self.taps):
            raise InputError("these image features were made without patches leaving the tower; encode them again")
        return in_one([own.stays for own in left])

    @cached_property
    def reader_attention(self) -> torch.Tensor:
        self._check("reader_attention")
        return in_one([tap.reader_attention for tap in self.taps])

    @cached_property
    def reader_keys(self) -> torch.Tensor:
        self._check("reader_keys")
        return in_one([tap.reader_keys for tap in self.taps])

    def class_tokens_with_gradient(self) -> torch.Tensor | None:
        """`[pictures, dim]`; None unless every run has them."""
        self._check("class_token")
        found = [own for tap in self.taps if (own := tap.class_tokens_with_gradient()) is not None]
        return in_one(found) if len(found) == len(self.taps) else None

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
