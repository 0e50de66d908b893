"""MMTok: patches that together cover the words of the question and the picture."""

import math
import re
from dataclasses import field
from typing import Literal

import torch
import torch.nn.functional as F

from seeless.budget import check_text
from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.coverage import greedy_cover
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope
from seeless.tower import Look, Tower

STOP_WORDS = frozenset(
    (
        *(
            "a",
            "an",
            "the",
            "is",
            "are",
            "was",
            "were",
            "be",
            "been",
            "being",
            "am",
            "has",
            "have",
            "had",
            "do",
            "does",
        ),
        *("did", "i", "you", "he", "she", "it", "we", "they", "this", "that", "these", "those", "what", "which"),
        *("who", "whom", "where", "when", "why", "how", "and", "or", "but", "if", "of", "in", "on", "at", "to", "for"),
        *("with", "question", "answer"),
    )
)


@register("mmtok")
class MMTok(EntryStrategy):
    """Keep patches that together cover the words of the question and the patches of the picture.

    Formula: rows P_ij = softmax over j of cos(z_i, x_j) / `text_temperature`, divided by the number of words, and
    Q_ij = alpha * softmax over j of cos(y_i, y_j) / `vision_temperature`, divided by the number of patches; always the
    patch stays that adds most to the sum over all rows of the largest entry among those that stay
    (`ops.coverage.greedy_cover`).
    Signal: z, embeddings of the question's words in the decoder's own table; x, the projected tokens; y, what the tower
    layer gave that made the features.
    Paper: "MMTok: Multimodal Coverage Maximization for Efficient Inference of VLMs", ICLR 2026, arXiv 2508.18264.
    Original: Ironieser/MMTok, Apache-2.0.

    The budget holds for every crop; a share is floored. Positions are contiguous (kept on M-RoPE). Reported scores are
    the largest P of each patch. The defaults are those of LLaVA; Qwen2.5-VL has text_temperature=0.01, words="all" and
    the question with "Question: " before it.

    Deviations: the list of stop words is ours, made by the kinds the paper's code leaves out (articles, forms of be,
    have and do, pronouns, question words, conjunctions, some prepositions, "question", "answer"), and may differ from
    it in single words. Patches of padding are not excluded. Where several patches make one token, y is their mean.

    Args:
        alpha: weight of the picture against the question, at least 0.
        text_temperature: of the softmax over the patches of a word, above 0.
        vision_temperature: of that over the patches of a patch.
        words: "content" leaves stop words and punctuation of the question out (all stay if nothing else is left) and
            cuts it into tokens word by word; "all" takes it as it is.
        question: text to cover, the same for all rows; None reads it from the prompt, row by row.

    Raises:
        InputError: in the first forward, if the question cannot be read or turned into tokens.
    """

    alpha: float = 0.5
    text_temperature: float = 0.02
    vision_temperature: float = 0.2
    words: Literal["content", "all"] = "content"
    question: str | None = None
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2508.18264"
    tower = ("layers",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha < math.inf:
            raise BudgetError(f"alpha={self.alpha!r} is not possible; give 0 or a positive number")
        for name in ("text_temperature", "vision_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise BudgetError(f"{name}={getattr(self, name)!r} is not possible; give a positive number")
        check_text("question", self.question)
        if self.threshold is not None:
            raise BudgetError("mmtok chooses by what tokens cover together, so it takes no threshold")

    def looks_into(self, tower: Tower) -> list[Look]:
        return [("hidden", tower.made)]

    def pieces(self, question: str) -> list[str]:
        """What of a question is turned into tokens, piece by piece."""
        if self.words == "all":
            return [question]
        return [word for word in re.findall(r"\b\w+\b", question) if word.lower() not in STOP_WORDS] or [question]

    def select(self, ctx: Context) -> Keep:
        words = ctx.token_embeds(self.pieces(ctx.question(self.question)))
        tokens, states = ctx.embeds, ctx.vision_hidden(ctx.tower.made)
        device, wide = tokens.device, torch.promote_types(tokens.dtype, torch.float32)
        z, x, y = (F.normalize(each.to(device, wide), dim=-1) for each in (words, tokens, states))
        by_word = (z @ x.transpose(1, 2) / self.text_temperature).softmax(-1) / z.shape[1]
        by_patch = self.alpha * (y @ y.transpose(1, 2) / self.vision_temperature).softmax(-1) / y.shape[1]
        chosen = greedy_cover(torch.cat([by_word, by_patch], 1), ctx.n_keep)
        return Keep.indices(chosen, x.shape[1], by_word.amax(1))
