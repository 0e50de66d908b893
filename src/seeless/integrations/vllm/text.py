"""What a strategy may ask about the question, and how patches relate to text."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from seeless.core.relevance import (
    check_clip,
    clip_of,
    clip_patches,
    clip_pooled,
    clip_tokens,
    embedding_similarity,
    load_clip,
)
from seeless.core.relevance import text_similarity as clip_similarity
from seeless.core.units import Unit
from seeless.errors import InputError
from seeless.integrations.vllm.tower import TowerView

NO_QUESTION = "a picture is encoded apart from its prompt; give the text with question="


class TextAnswers:
    """Answers a `Context` about text.

    Args:
        view: of the model.
        units: that ask together.
        device: of the tokens.
    """

    view: TowerView
    units: list[Unit]
    device: torch.device

    @abstractmethod
    def embeds(self) -> torch.Tensor:
        """`[units, visual, dim]`, what enters the decoder."""

    @abstractmethod
    def vision_features(self) -> torch.Tensor:
        """`[units, visual, dim]`, what the projector takes in."""

    def question(self, text: str | None) -> str:
        if text is None or not text.strip():
            raise InputError(NO_QUESTION)
        return text.strip()

    def token_ids(self, pieces: Sequence[str]) -> torch.Tensor:
        ids = [token for piece in pieces for token in self.view.tokenizer(piece, add_special_tokens=False)["input_ids"]]
        if not ids:
            raise InputError(f"{list(pieces)!r} has no tokens; give a text")
        return torch.tensor(ids, device=self.device).expand(len(self.units), -1)

    def token_embeds(self, pieces: Sequence[str]) -> torch.Tensor:
        ids = self.token_ids(pieces)
        found = self.view.base.get_input_embeddings()(ids[0])
        return found.expand(len(ids), *found.shape)

    def in_clip_space(self, clip: str | None) -> bool:
        return check_clip(self.view, clip) is not None  # type: ignore[arg-type]

    def _clip(self, clip: str | None) -> tuple[Any, Any]:
        return clip_of(self.view, clip)  # type: ignore[arg-type]

    def clip_patches(self, clip: str) -> torch.Tensor:
        return clip_patches(self._clip(clip)[0], self.vision_features())

    def clip_text(self, clip: str, text: str) -> torch.Tensor:
        return self._of_text(clip_pooled(*self._clip(clip), text, self.device))

    def clip_tokens(self, clip: str, text: str, padding: bool) -> torch.Tensor:
        return self._of_text(clip_tokens(*self._clip(clip), text, self.device, padding))

    def _of_text(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors.expand(len(self.units), *vectors.shape)

    def text_similarity(self, clip: str | None, question: str | None) -> torch.Tensor:
        named = check_clip(self.view, clip)  # type: ignore[arg-type]
        questions = [self.question(question)] * len(self.units)
        if named is None:
            return embedding_similarity(self.view, self.embeds(), questions)  # type: ignore[arg-type]
        return clip_similarity(*load_clip(named), self.vision_features(), questions)
