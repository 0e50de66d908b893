"""What a strategy's `Context` answers about the question, for a group of units."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from seeless.core.relevance import (
    check_clip,
    clip_of,
    clip_patches,
    clip_pooled,
    clip_tokens,
    embedding_similarity,
    load_clip,
    load_tokenizer,
    read_question,
    text_similarity,
)
from seeless.core.tower_answers import TowerAnswers
from seeless.core.transfer import upload
from seeless.errors import InputError


class QuestionAnswers(TowerAnswers):
    """Answers a `Context` about the question, and how patches relate to text."""

    @abstractmethod
    def embeds(self) -> torch.Tensor:
        """`[units, visual, dim]`, what enters the decoder."""

    def question(self, text: str | None) -> str:
        if text is None:
            self.group.need_alike("question")
            text = self._questions(self.group.units[0].row)[0]
        if not text.strip():
            raise InputError("there is no question to compare the image with; give the text with question=")
        return text.strip()

    def _questions(self, *rows: int) -> list[str]:
        """Of some rows."""
        prompt, name = self.session.prompt, self.session.view.config._name_or_path
        if prompt.ids is None:
            raise InputError("a forward without input_ids does not say what is asked; give the text with question=")
        asked = {row: read_question(name, prompt.ids[row, prompt.text_after_images(row)].tolist()) for row in set(rows)}
        return [asked[row] for row in rows]

    def token_ids(self, pieces: Sequence[str]) -> torch.Tensor:
        undone = "the text cannot be turned into tokens"
        instead = "load the model from a checkpoint with its tokenizer"
        tokenizer = load_tokenizer(self.session.view.config._name_or_path, undone, instead)
        ids = [np.array(tokenizer(piece, add_special_tokens=False)["input_ids"], dtype=np.int64) for piece in pieces]
        if not sum(map(len, ids)):
            raise InputError(f"{list(pieces)!r} has no tokens; give a text")
        return upload([np.concatenate(ids)], self.group.rows.device)[0].expand(len(self.group.units), -1)

    def token_embeds(self, pieces: Sequence[str]) -> torch.Tensor:
        ids, table = self.token_ids(pieces), self.session.view.base.get_input_embeddings()
        away = table.weight.device.type == "meta"  # offloaded: brought in while it runs
        found = table(ids[0] if away else ids[0].to(table.weight.device)).detach().to(ids.device)
        return found.expand(len(ids), *found.shape)

    def in_clip_space(self, clip: str | None) -> bool:
        return check_clip(self.session.view, clip) is not None

    def _clip(self, clip: str | None) -> tuple[Any, Any]:
        return clip_of(self.session.view, clip)

    def clip_patches(self, clip: str | None) -> torch.Tensor:
        return clip_patches(self._clip(clip)[0], self.vision_features())

    def _of_text(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors.expand(len(self.group.units), *vectors.shape)

    def clip_text(self, clip: str | None, text: str) -> torch.Tensor:
        model, tokenizer = self._clip(clip)
        return self._of_text(clip_pooled(model, tokenizer, text, self.group.rows.device))

    def clip_tokens(self, clip: str | None, text: str, padding: bool) -> torch.Tensor:
        model, tokenizer = self._clip(clip)
        return self._of_text(clip_tokens(model, tokenizer, text, self.group.rows.device, padding))

    def text_similarity(self, clip: str | None, question: str | None) -> torch.Tensor:
        view, units = self.session.view, self.group.units
        named = check_clip(view, clip)
        loaded = None if named is None else load_clip(named)
        questions = [question] * len(units) if question is not None else self._questions(*(unit.row for unit in units))
        if loaded is None:
            return embedding_similarity(view, self.embeds(), questions)
        return text_similarity(*loaded, self.vision_features(), questions)
