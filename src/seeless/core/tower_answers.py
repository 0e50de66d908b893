"""What a strategy's `Context` answers about the vision tower, for a group of units."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from seeless.core.groups import Group
from seeless.core.images import NO_FRAME, NO_PATCH
from seeless.core.session import Session
from seeless.core.vision_table import Vision
from seeless.decision import Merge
from seeless.errors import InputError
from seeless.tower import Asking, Tower

NO_PATCH_SHOWN = (
    "some of these visual tokens show no patch (newline or class tokens), so the vision tower says nothing about them; "
    "use scope='crop', or say in the strategy's `tower` what it reads, so that only patches are ranked"
)


class TowerAnswers:
    """Answers a `Context` about the tower.

    Args:
        vision: what the strategy may know of it.
    """

    def __init__(self, session: Session, vision: Vision, group: Group) -> None:
        self.session, self.vision, self.group = session, vision, group
        self._said: dict[str, None] = {}

    @property
    def signal(self) -> str | None:
        """Which attention of the tower was asked for, in words; None if none was."""
        return " and ".join(self._said) or None

    def _say(self, signal: str) -> None:
        self._said[signal] = None

    def _check_unmoved(self) -> None:
        if self.session.row.token is not None:
            raise InputError(
                "tokens were added before this stage, so not every visual token has an embedding or a patch of "
                "its own; read them at an earlier stage and keep them in the memory of the prefill"
            )

    def _of_tokens(self, per_row: Callable[[int], np.ndarray]) -> tuple[list[np.ndarray], torch.Tensor]:
        """Numbers of every unit's original tokens on the host, and of those that are left on the device."""
        host = [per_row(unit.row)[unit.tokens] for unit in self.group.units]
        return host, self.group.of_original(self.group.host(host))

    @cached_property
    def _sources(self) -> torch.Tensor:
        """`[units, visual]`, places in the tables of `vision`."""
        self._check_unmoved()
        host, places = self._of_tokens(self.session.prompt.layout.source)
        if any((own == NO_PATCH).any() for own in host) and not self._only_patches_left(host):
            raise InputError(NO_PATCH_SHOWN)
        return places

    def _only_patches_left(self, sources: list[np.ndarray]) -> bool:
        """Whether all tokens that show no patch are known to have left."""
        ledger = self.session.ledger
        return all(
            ledger.gone(unit.row, unit.tokens[own == NO_PATCH])
            for unit, own in zip(self.group.units, sources, strict=True)
        )

    def tower(self) -> Tower:
        return self.vision.tower

    def vision_attention(self, layer: int | None = None, queries: Asking | None = None) -> torch.Tensor:
        if layer is None and queries is None:
            attention = self.vision.attention
            self._say(self.vision.signal)
        else:
            tower = self.vision.tower
            layer, queries = tower.made if layer is None else layer, queries or tower.asking
            attention = self.vision.looked_attention(layer, queries)
            self._say(self.vision.looked_signal(layer, queries))
        return attention[self._sources].transpose(1, 2)

    def vision_hidden(self, layer: int) -> torch.Tensor:
        return self.vision.looked_hidden(layer)[self._sources]

    def pooling_attention(self, siglip: str | None) -> torch.Tensor:
        attention = self.vision.pooling_attention(siglip)
        self._say("the attention of the pooling head's probe")
        return attention[self._sources].transpose(1, 2)

    def pooled(self, siglip: str | None) -> torch.Tensor:
        return self.vision.pooled(siglip)[self._sources]

    def patch(self) -> torch.Tensor:
        self._check_unmoved()
        return self._of_tokens(self.session.prompt.layout.patch)[1]

    def frame(self) -> torch.Tensor:
        host, frames = self._of_tokens(self.session.prompt.layout.frame)
        if any((own != NO_FRAME).any() for own in host):
            self._check_unmoved()
        return frames

    def crop_attention(self) -> torch.Tensor:
        layout = self.session.prompt.layout
        attention = self.vision.attention
        self._say(self.vision.signal)
        whole = []
        for unit in self.group.units:
            token = unit.tokens[0]
            placed = next(placed for placed in layout.images[unit.row] if (placed.tokens == token).any())
            height, width = placed.image.sides[int(placed.image.crop[placed.tokens == token][0])]
            first = layout.source(unit.row)[token] - layout.patch(unit.row)[token]
            whole.append(first + np.arange(height * width))
        return attention[self.group.host(whole)].transpose(1, 2)

    def vision_features(self) -> torch.Tensor:
        return self.vision.features[self._sources]

    def vision_keys(self) -> torch.Tensor:
        return self.vision.keys[self._sources].transpose(1, 2)

    def tower_groups(self) -> torch.Tensor:
        return self.vision.groups[self._sources]

    def tower_stays(self) -> torch.Tensor:
        return self.vision.stays[self._sources]

    def class_token(self) -> torch.Tensor | None:
        own = self._class_token_with_gradient()
        return None if own is None else own.detach()

    def reader_attention(self) -> torch.Tensor:
        attention = self.vision.reader_attention
        self._say(self.vision.reader_signal)
        return attention[self._sources]

    def reader_keys(self) -> torch.Tensor:
        return self.vision.reader_keys[self._sources]

    def _class_token_with_gradient(self) -> torch.Tensor | None:
        if (all_pictures := self.vision.class_tokens_with_gradient()) is None:
            return None
        picture = [self.vision.picture(own) for own in self._of_tokens(self.session.prompt.layout.source)[0]]
        if any((own != own[0]).any() for own in picture):
            raise InputError("a unit of several pictures has several class tokens; use scope='crop'")
        return all_pictures[self.group.host([own[:1] for own in picture])[:, 0].to(all_pictures.device)]

    def merged_features(self, merge: Merge) -> torch.Tensor:
        """What the projector is to take in for the merged tokens, `[units, visual, dim]`, with gradient."""
        features = self.vision.features_with_gradient()
        features = features[self._sources.to(features.device)]
        own = self._class_token_with_gradient() if self.vision.offers("class_token") else None
        if own is not None:
            return merge.values(torch.cat([features, own[:, None]], 1))
        visual = features.shape[1]
        wrong = (merge.source >= visual).sum(1)
        self.session.findings.add(
            "a merge at the entry",
            lambda number: f"row {self.group.units[number].row}",
            {"asks {} times for a class token, which the projector of this model does not take": wrong},
        )
        return replace(merge, source=merge.source.clamp(max=visual - 1)).values(features)
