"""PriorTR-2F as its framework has it: the prior from a prompt without the question."""

from typing import Any

import torch

from seeless.errors import UnsupportedModel
from seeless.vtr.base import Range, over_heads
from seeless.vtr.config import VTRConfig
from seeless.vtr.deferred import Deferred
from seeless.vtr.priortr import EPSILON, PriorTRStrategy
from seeless.vtr.registry import register_strategy


@register_strategy("priortr_2f")
class PriorTR2FStrategy(PriorTRStrategy):
    """PriorTR with Q from the prompt cut off after the image, whose last row is here the first one after the image.

    A decoder is causal, so that row is the same in the whole prompt and no second forward is run. The released code
    differs by backbone, and so does this: on Video-LLaVA Q is read in layer K, P in layer K - 1. On Qwen the mask of
    its second forward takes every visual token for a sequence of its own, so Q is zero and the ranking that of P; with
    sdpa, its rows differ further (`as_released`, refused). `seeless.PriorTR2F` has neither fault, and it has
    `prior_mode="template"`, which is refused here.
    """

    def check(self, config: VTRConfig) -> None:
        super().check(config)
        if config.prior_mode == "template":
            raise UnsupportedModel(
                "prior_mode='template' needs a second prompt; use seeless.PriorTR2F with its template instead"
            )
        if config.as_released:
            raise UnsupportedModel(
                "the released PriorTR-2F, run with sdpa, adds its mask to the scores of a second forward in which no "
                "visual token sees another; that is not reproduced. Leave as_released out"
            )

    def compute_scores(  # type: ignore[override]
        self,
        attention: torch.Tensor,
        image_token_range: Range,
        config: VTRConfig,
        next_attention: Any = None,
        **ctx: Any,
    ) -> torch.Tensor:
        posterior = self._aggregate_attention(attention, image_token_range, config)
        given = ctx.get("prior_attention")
        if given is not None and not isinstance(given, Deferred):  # from a subclass, not what every context holds
            prior = given[: len(posterior)]
        elif config.backbone.released_rows:
            prior = torch.zeros_like(posterior)
        else:
            video = config.backbone.name == "video_llava"
            prior = self._null_attention(next_attention if video else attention, image_token_range, config)
            prior = prior / (prior.sum() + EPSILON)
        return self._correct(posterior, prior)

    def _aggregate_attention(
        self, attention: torch.Tensor, image_token_range: Range, config: VTRConfig
    ) -> torch.Tensor:
        """P: the question's rows without the last one, on every backbone."""
        (start, end), last = image_token_range, attention.shape[2] - 1
        if config.query_aggregation == "question" and end < last:
            rows = attention[:, :, end:last, start:end].mean(dim=2)
        else:
            rows = attention[:, :, last, start:end]
        return over_heads(rows, config).squeeze(0)
