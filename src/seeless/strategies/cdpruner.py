"""CDPruner: keep patches that have to do with the question and differ from each other."""

from dataclasses import field

import torch
import torch.nn.functional as F

from seeless.budget import check_text
from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.dpp import greedy_map
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope


@register("cdpruner")
class CDPruner(EntryStrategy):
    """Keep patches that have to do with the question and differ from each other.

    Formula: score_j = (r_j - min r + 1e-6) / (max r - min r), r_j = -cos(patch j, question) in the common space of CLIP
    (patches resemble a text the less, the more it is about them), mean over the question's segments; where the tower is
    no CLIP, r_j = cos(x_j, e), mean over the embeddings e of the question's tokens, x the projected tokens. With B the
    cosines of the projected tokens and K = diag(score) B diag(score), tokens are chosen one after another so that the
    determinant of their part of K grows most (`ops.dpp.greedy_map`).
    Signal: the projected tokens, and CLIP's patches and text, or the question's embeddings where the tower is no CLIP.
    Paper: Zhang et al., "Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs",
    NeurIPS 2025, arXiv 2506.10967, section 3.
    Original: Theia-4869/CDPruner, Apache-2.0.

    Patches are what the projector takes in, through the CLIP model's last norm and its projection. The question is cut
    into segments of 77 tokens. "Answer the question using a single word or phrase." at its end does not count. The
    budget holds for every crop; a share is rounded. Positions are contiguous. Reported scores are the above.
    Of N tokens the T choices come one after the other, each of which takes N operations for every one before: N T^2.

    Without CLIP: that x is what enters the decoder, and that the sign is turned round for CLIP alone, is what the
    authors answered to questions about Qwen2.5-VL, for which they have released no code; that cosines are averaged over
    the question's tokens follows from the formula for CLIP's segments and is unchecked.

    Deviations: relevance is in float32 and the choice in float64, the released code normalises in the model's
    precision. Minimum and maximum are those of each unit, there of all crops of a picture. Pictures are not forced to
    five crops. Where all r are equal, the span counts as 1.

    Args:
        clip: folder or hub name of the CLIP model the tower came from (its text tower is needed, and vision-language
            checkpoints do not carry one), such as "openai/clip-vit-large-patch14-336" for LLaVA; None where the tower
            is no CLIP.
        question: text to compare with, the same for all rows; None reads it from the prompt, row by row: the text after
            the last image up to where the answer begins ("ASSISTANT:", a line "assistant" or "model", "[/INST]"),
            decoded with the tokenizer of the checkpoint that the model was loaded from.

    Raises:
        UnsupportedModel: in the first forward, if the tower is a CLIP and no `clip` is given, or another one; if it is
            none and one is given.
        InputError: in the first forward, if the question cannot be read.
    """

    clip: str | None = None
    question: str | None = None
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2506.10967"
    rounding = round
    tower = ("features",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("clip", self.clip)
        check_text("question", self.question)
        if self.threshold is not None:
            raise BudgetError("cdpruner chooses by relevance and diversity together, so it takes no threshold")

    def score(self, ctx: Context) -> torch.Tensor:
        similarity = ctx.text_similarity(self.clip, self.question)
        relevance = similarity if self.clip is None else -similarity
        low, high = relevance.amin(1, keepdim=True), relevance.amax(1, keepdim=True)
        return (relevance - low + 1e-6) / torch.where(high > low, high - low, 1)

    def select(self, ctx: Context) -> Keep:
        scores = self.score(ctx)
        directions = F.normalize(ctx.embeds.to(scores.device, torch.float64), dim=-1)
        likeness = directions @ directions.transpose(1, 2)
        likeness.diagonal(dim1=1, dim2=2).fill_(1)  # rounding must not decide between equally relevant tokens
        kernel = scores[:, :, None] * likeness * scores[:, None, :]
        return Keep.indices(greedy_map(kernel, ctx.n_keep), scores.shape[1], scores)
