"""What a strategy may ask before any decoder layer runs: the tower's signals, the projected tokens, where they lie."""

from typing import Any, NoReturn

import numpy as np
import torch

from seeless.core.images import NO_PATCH
from seeless.core.units import Layout, Unit
from seeless.core.vision_table import Vision
from seeless.decision import Merge
from seeless.errors import InputError
from seeless.integrations.vllm.text import TextAnswers
from seeless.tower import Asking, Tower

LATER = (
    "{question} is known once the decoder runs, but vLLM encodes a picture before that and apart from its prompt; a "
    "strategy there sees the tower, the projected tokens and where they lie"
)
NO_PATCH_SHOWN = "some of these tokens show no patch, so the tower has no signal for them; use scope='crop'"


class Answers(TextAnswers):
    """Answers for units of one size, as the `sources` of a `Context`.

    Args:
        embeds: of every row of the layout, `[tokens, dim]`.
        vision: this run of the tower, for one strategy.
    """

    def __init__(self, layout: Layout, units: list[Unit], embeds: list[torch.Tensor], vision: Vision) -> None:
        self.layout, self.units, self.rows, self.vision = layout, units, embeds, vision
        self.view: Any = vision.taps[0].view
        self.device = embeds[0].device

    def __getattr__(self, question: str) -> NoReturn:
        if question.startswith("__"):
            raise AttributeError(question)
        raise InputError(LATER.format(question=question))

    def _numbers(self, per_row: Any) -> torch.Tensor:
        """Whole numbers of the units' tokens, `[units, visual]`."""
        own = np.stack([per_row(unit.row)[unit.tokens] for unit in self.units])
        return torch.from_numpy(own).to(self.device)

    def embeds(self) -> torch.Tensor:
        places = torch.from_numpy(np.stack([unit.tokens for unit in self.units])).to(self.device)
        return torch.stack([self.rows[unit.row][own] for unit, own in zip(self.units, places, strict=True)])

    def visual(self) -> torch.Tensor:
        return self.embeds()

    def patch(self) -> torch.Tensor:
        return self._numbers(self.layout.patch)

    def frame(self) -> torch.Tensor:
        return self._numbers(self.layout.frame)

    def _sources(self) -> torch.Tensor:
        """`[units, visual]`, places in the tables of the tower's run."""
        if any((self.layout.source(unit.row)[unit.tokens] == NO_PATCH).any() for unit in self.units):
            raise InputError(NO_PATCH_SHOWN)
        return self._numbers(self.layout.source)

    def tower(self) -> Tower:
        return self.vision.tower

    def vision_attention(self, layer: int | None = None, queries: Asking | None = None) -> torch.Tensor:
        if layer is None and queries is None:
            return self.vision.attention[self._sources()].transpose(1, 2)
        tower = self.vision.tower
        attention = self.vision.looked_attention(tower.made if layer is None else layer, queries or tower.asking)
        return attention[self._sources()].transpose(1, 2)

    def vision_hidden(self, layer: int) -> torch.Tensor:
        return self.vision.looked_hidden(layer)[self._sources()]

    def pooling_attention(self, siglip: str | None) -> torch.Tensor:
        return self.vision.pooling_attention(siglip)[self._sources()].transpose(1, 2)

    def pooled(self, siglip: str | None) -> torch.Tensor:
        return self.vision.pooled(siglip)[self._sources()]

    def vision_features(self) -> torch.Tensor:
        return self.vision.features[self._sources()]

    def vision_keys(self) -> torch.Tensor:
        return self.vision.keys[self._sources()].transpose(1, 2)

    def reader_attention(self) -> torch.Tensor:
        return self.vision.reader_attention[self._sources()]

    def reader_keys(self) -> torch.Tensor:
        return self.vision.reader_keys[self._sources()]

    def class_token(self) -> torch.Tensor | None:
        if (every := self.vision.class_tokens_with_gradient()) is None:
            return None
        own = [self.vision.picture(self.layout.source(unit.row)[unit.tokens]) for unit in self.units]
        if any((pictures != pictures[0]).any() for pictures in own):
            raise InputError("a unit of several pictures has several class tokens; use scope='crop'")
        return every[torch.tensor([int(pictures[0]) for pictures in own], device=every.device)]

    def merged_features(self, merge: Merge) -> torch.Tensor:
        """What the projector is to take in for the merged tokens, `[units, visual, dim]`."""
        features = self.vision_features()
        own = self.class_token() if self.vision.offers("class_token") else None
        return merge.values(features if own is None else torch.cat([features, own[:, None]], 1))
