"""PriorTR as its own framework has it."""

from typing import Any

import torch

from seeless.errors import InputError, UnsupportedModel
from seeless.vtr.base import NO_NULL_TOKEN, PruningStrategy, Range, over_heads
from seeless.vtr.builtin import BuiltIn
from seeless.vtr.config import VTRConfig
from seeless.vtr.registry import register_strategy

EPSILON = 1e-10


@register_strategy("priortr")
class PriorTRStrategy(BuiltIn, PruningStrategy):
    """score = P ln((P + e) / (Q + e)), P and Q normalised over the visual tokens, e = 1e-10 (arXiv 2606.24156).

    P is `_aggregate_attention`, Q `_null_attention`, the formula `_correct`; override what you want to change. The rows
    differ by backbone: Q is the first row after the image, on InternVL the second; the question's rows of P include the
    last one on LLaVA, InternVL and Video-LLaVA, not on Qwen.
    """

    def check(self, config: VTRConfig) -> None:
        if not config.backbone.blind:
            raise UnsupportedModel(
                "the whole prompt of this model sees itself, so no token after the image is blind to the question and "
                "there is no null token whose attention could be read; use another strategy"
            )

    def compute_scores(
        self, attention: torch.Tensor, image_token_range: Range, config: VTRConfig, **ctx: Any
    ) -> torch.Tensor:
        posterior = self._aggregate_attention(attention, image_token_range, config)
        prior = self._null_attention(attention, image_token_range, config)
        return self._correct(posterior, prior)

    def _aggregate_attention(
        self, attention: torch.Tensor, image_token_range: Range, config: VTRConfig
    ) -> torch.Tensor:
        """P, `[visual]`."""
        (start, end), seq = image_token_range, attention.shape[2]
        stop = seq if config.backbone.last_row else seq - 1
        if config.query_aggregation == "question" and end < stop:
            rows = attention[:, :, end:stop, start:end].mean(dim=2)
        else:
            rows = attention[:, :, seq - 1, start:end]
        return over_heads(rows, config).squeeze(0)

    def _null_attention(self, attention: torch.Tensor, image_token_range: Range, config: VTRConfig) -> torch.Tensor:
        """Q, `[visual]`."""
        (start, end), seq = image_token_range, attention.shape[2]
        row = end + config.backbone.null_row
        if row >= seq:
            raise InputError(NO_NULL_TOKEN)
        return over_heads(attention[:, :, row, start:end], config).squeeze(0)

    def _correct(self, posterior: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        """The score of P against Q."""
        p, q = posterior.float(), prior.to(posterior.device).float()
        p, q = p / (p.sum() + EPSILON), q / (q.sum() + EPSILON)
        scores = p * ((p + EPSILON) / (q + EPSILON)).log()
        if bool(scores.isnan().any()):
            scores = torch.nan_to_num(scores, nan=0.0, posinf=1e6, neginf=-1e6)
        return scores.clamp(-1e6, 1e6).to(posterior.dtype)
