"""The two shapes a guest strategy may have: PriorTR's for LLaVA, InternVL and Video-LLaVA, and its one for Qwen."""

from abc import ABC, abstractmethod
from typing import Any

import torch

from seeless.vtr.config import VTRConfig

Range = tuple[int, int]
NO_TEXT = "no token follows the image, so there is no text whose attention could be read"
NO_NULL_TOKEN = "no token follows the image, so there is no null token whose attention could be read"


class PruningStrategy(ABC):
    """Base of guest strategies as PriorTR has it for LLaVA, InternVL and Video-LLaVA.

    `compute_scores` is called at every cut with `attention` `[1, heads, seq, seq]` of the layer before it (a
    `LazyAttention`: index it), the range `(start, end)` of the visual tokens in the present sequence, the configuration
    and, by name, `layer_idx` (that layer), `step` (which cut this is), `hidden_states` `[1, seq, dim]`, `cache` (a dict
    of your own that lives for one prefill), `z_ref`, `grid_hw` and the rest of the context (`docs/add-a-method.md`).
    """

    @abstractmethod
    def compute_scores(
        self, attention: torch.Tensor, image_token_range: Range, config: VTRConfig, **ctx: Any
    ) -> torch.Tensor:
        """One score per visual token, `[visual]`; higher stays."""

    def select_tokens(self, scores: torch.Tensor, num_tokens: int, config: VTRConfig) -> torch.Tensor:
        """Which tokens stay, ascending, counted from the start of the range.

        `keep_tokens`, else all above `score_threshold` (the best if there is none), else `keep_ratio` of `num_tokens`.
        """
        if config.keep_tokens is None and config.score_threshold is not None:
            return above(scores, float(config.score_threshold))  # type: ignore[arg-type]
        return best(scores, config.get_keep_count(num_tokens))

    def _aggregate_attention(
        self, attention: torch.Tensor, image_token_range: Range, config: VTRConfig
    ) -> torch.Tensor:
        """Attention of the instruction to the visual tokens, `[visual]`, reduced over rows, then over heads.

        "question" is the mean over all rows after the range but the last, or the last row where there is no other; any
        other query aggregation is the last row.
        """
        start, end = image_token_range
        last = attention.shape[2] - 1
        if config.query_aggregation == "question" and end < last:
            rows = attention[:, :, end:last, start:end].mean(dim=2)
        else:
            rows = attention[:, :, last, start:end]
        return over_heads(rows, config).squeeze(0)


class VTRStrategy(ABC):
    """Base of guest strategies as PriorTR has it for Qwen-VL: `layer_idx` is the number of the cut, from 0."""

    def prepare(self, hidden_states: torch.Tensor, config: VTRConfig, context: dict) -> None:  # noqa: B027
        """Called once per prefill with the embeddings `[1, seq, dim]`; what it puts into `context` is passed on."""

    @abstractmethod
    def compute_scores(
        self, attention: torch.Tensor, image_token_range: Range, config: VTRConfig, layer_idx: int = 0, **context: Any
    ) -> torch.Tensor:
        """One score per visual token, `[visual]`; higher stays."""

    def select_tokens(
        self, scores: torch.Tensor, num_tokens: int, config: VTRConfig, layer_idx: int = 0
    ) -> torch.Tensor:
        """Which tokens stay, ascending; budgets in lists are read at `layer_idx`."""
        single = config.at_step(layer_idx)
        if single.keep_tokens is None and single.score_threshold is not None:
            return above(scores, float(single.score_threshold))  # type: ignore[arg-type]
        count = config.get_keep_count(num_tokens, layer_idx)
        return torch.arange(num_tokens, device=scores.device) if count >= num_tokens else best(scores, count)

    def post_prune(
        self,
        hidden_states: torch.Tensor,
        pruned_hidden_states: torch.Tensor,
        keep_indices: torch.Tensor,
        image_token_range: Range,
        config: VTRConfig,
        layer_idx: int,
        **context: Any,
    ) -> torch.Tensor:
        """The hidden states `[1, seq, dim]` after the cut; rows may be inserted at the end of the visual tokens.

        Args:
            hidden_states: before the cut, `[1, seq before, dim]`.
            pruned_hidden_states: after it.
            keep_indices: `[kept]`, what stayed, counted from the start of the range before the cut.
            image_token_range: `(start, end)` after the cut; new rows go to `end`.
        """
        return pruned_hidden_states


def over_heads(attention: torch.Tensor, config: VTRConfig) -> torch.Tensor:
    """`[1, heads, ...]` reduced to `[1, ...]`: maximum for "max", else mean."""
    return attention.amax(dim=1) if config.head_aggregation == "max" else attention.mean(dim=1)


def best(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Places of the `count` highest scores, ascending; the lower place wins a tie."""
    order = (scores.float() if scores.element_size() < 4 else scores).argsort(descending=True, stable=True)
    return order[:count].sort().values


def above(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Places of the scores above a threshold, or of the highest one."""
    chosen = (scores > threshold).nonzero()[:, 0]
    return chosen if len(chosen) else best(scores, 1)
