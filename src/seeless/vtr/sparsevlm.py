"""SparseVLM as PriorTR's framework has it."""

from typing import Any

import torch

from seeless.errors import InputError, UnsupportedModel
from seeless.ops.raters import text_raters
from seeless.vtr.base import NO_TEXT, Range, VTRStrategy
from seeless.vtr.builtin import BuiltIn
from seeless.vtr.config import VTRConfig
from seeless.vtr.registry import register_strategy
from seeless.vtr.token_merge import merge_tokens


@register_strategy("sparsevlm")
class SparseVLMStrategy(BuiltIn, VTRStrategy):
    """score = attention of the rows of the words that resemble the image, mean over rows and heads (arXiv 2410.04417).

    With `token_merge`, of the p tokens that leave the int(0.3 p) + 1 best, t, are merged into t // 10 + 1 clusters by
    density peaks, whose means are put after the visual tokens. With a ratio kept and merged tokens together are the
    budget; with `keep_tokens` the merged ones come on top. The noise that settles equal densities is drawn by
    `torch.rand` from the global generator, as in the released code.
    """

    def check(self, config: VTRConfig) -> None:
        if config.token_merge and config.as_released:
            raise UnsupportedModel(
                "after a merge the released code, run with sdpa, masks every visual token as a sequence of its own, so "
                "that the text no longer sees the image; that is not reproduced. Leave token_merge or as_released out"
            )

    def prepare(self, hidden_states: torch.Tensor, config: VTRConfig, context: dict) -> None:
        start, end = context["image_token_range"]
        if end == hidden_states.shape[1]:
            raise InputError(NO_TEXT)
        raters = text_raters(hidden_states[:, start:end], hidden_states[:, end:])
        context["important_text_token_idx"] = raters.nonzero(as_tuple=True)

    def compute_scores(  # type: ignore[override]
        self,
        attention: torch.Tensor,
        image_token_range: Range,
        config: VTRConfig,
        layer_idx: int = 0,
        *,
        important_text_token_idx: tuple[torch.Tensor, torch.Tensor],
        **context: Any,
    ) -> torch.Tensor:
        start, end = image_token_range
        rows = attention[:, :, end + important_text_token_idx[1], start:end]
        return rows.mean(dim=1).mean(dim=1).squeeze(0)

    def post_prune(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        pruned_hidden_states: torch.Tensor,
        keep_indices: torch.Tensor,
        image_token_range: Range,
        config: VTRConfig,
        layer_idx: int,
        *,
        pruned_token_scores: torch.Tensor,
        **context: Any,
    ) -> torch.Tensor:
        if not config.token_merge or len(pruned_token_scores) == 0:
            return pruned_hidden_states
        start, at = image_token_range
        dropped = torch.ones(len(keep_indices) + len(pruned_token_scores), dtype=torch.bool, device=keep_indices.device)
        dropped[keep_indices] = False
        merged = merge_tokens(hidden_states[0, start + dropped.nonzero()[:, 0]], pruned_token_scores)
        return torch.cat([pruned_hidden_states[:, :at], merged[None], pruned_hidden_states[:, at:]], 1)
