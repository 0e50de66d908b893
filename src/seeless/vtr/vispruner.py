"""VisPruner as PriorTR's framework has it."""

from typing import Any

import torch

from seeless.ops.similarity import drop_duplicates
from seeless.strategy import Scope
from seeless.vtr.base import PruningStrategy, Range
from seeless.vtr.builtin import BuiltIn
from seeless.vtr.config import VTRConfig
from seeless.vtr.registry import register_strategy


@register_strategy("vispruner")
class VisPrunerStrategy(BuiltIn, PruningStrategy):
    """Before the language model, image by image: the most attended tokens, and of the rest those that differ.

    score = 2 for the int(T * `important_ratio`) (at least one) tokens with the highest tower attention, 1 for what is
    left of the others after duplicates were removed (`ops.similarity.drop_duplicates`, survivors in ascending order of
    similarity), else 0. T is the budget of the image. `prune_layer` has no meaning. (arXiv 2412.01818v2)
    """

    scope: Scope = "image"
    before_decoder = True

    def compute_scores(  # type: ignore[override]
        self,
        attention: torch.Tensor,
        image_token_range: Range,
        config: VTRConfig,
        vit_importance: torch.Tensor,
        vit_merged_features: torch.Tensor,
        **ctx: Any,
    ) -> torch.Tensor:
        visual = len(vit_importance)
        count = max(1, min(config.get_keep_count(visual), visual))
        important = min(count, max(1, int(count * config.important_ratio)))
        order = vit_importance.float().argsort(descending=True, stable=True)
        features = vit_merged_features.float()
        features = features / (features.norm(dim=-1, keepdim=True) + 1e-8)
        rest = drop_duplicates(features[None], order[None, important:], count - important, ascending=True)[0]
        scores = torch.zeros(visual, device=order.device)
        scores[rest] = 1
        scores[order[:important]] = 2
        return scores
