"""FastV as PriorTR's framework has it."""

from typing import Any

import torch

from seeless.errors import InputError
from seeless.vtr.base import NO_TEXT, PruningStrategy, Range, over_heads
from seeless.vtr.builtin import BuiltIn
from seeless.vtr.config import VTRConfig
from seeless.vtr.registry import register_strategy


@register_strategy("fastv")
class FastVStrategy(BuiltIn, PruningStrategy):
    """score = attention of the last row, or of the question's rows, over heads.

    "question" is the sum over all rows after the image on LLaVA, InternVL and Video-LLaVA, and the mean over all but
    the last on Qwen (the last row alone where there is no other).
    """

    def compute_scores(
        self, attention: torch.Tensor, image_token_range: Range, config: VTRConfig, **ctx: Any
    ) -> torch.Tensor:
        (start, end), last = image_token_range, attention.shape[2] - 1
        if config.query_aggregation != "question":
            rows = attention[:, :, last, start:end]
        elif config.backbone.fastv_sum:
            if end > last:
                raise InputError(NO_TEXT)
            rows = attention[:, :, end:, start:end].sum(dim=2)
        elif end < last:
            rows = attention[:, :, end:last, start:end].mean(dim=2)
        else:
            rows = attention[:, :, last, start:end]
        return over_heads(rows, config).squeeze(0)
