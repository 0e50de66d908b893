"""CLSE as PriorTR's framework has it."""

from typing import Any

import torch

from seeless.errors import BudgetError, UnsupportedModel
from seeless.ops.spectral import spectral_evolution
from seeless.vtr.base import PruningStrategy, Range, above, best
from seeless.vtr.builtin import BuiltIn
from seeless.vtr.config import VTRConfig
from seeless.vtr.registry import register_strategy

LAYERS = {32: [1, 11, 21], 28: [1, 10, 19], 36: [1, 13, 24]}
SHARES = (1.72, 1.09, 0.32)
COUNTS = {192: (330, 210, 62), 128: (220, 140, 41), 64: (110, 70, 20)}
RATIOS = {0.334: (0.57, 0.36, 0.098), 0.223: (0.38, 0.24, 0.066), 0.112: (0.19, 0.12, 0.034)}
SAME = {192: 0.334, 128: 0.223, 64: 0.112}
FULL = 576
SOFTENING = 1e-6  # in the exponent of the high-pass, in the copy for videos only


@register_strategy("clse")
class CLSEStrategy(BuiltIn, PruningStrategy):
    """score = spectral evolution * attention of the last row at the first cut, attention later (arXiv 2606.24165).

    A single `prune_layer` is replaced by three cuts chosen by depth (one, before layer 3, on Video-LLaVA); a list is
    taken as it stands. Budgets: on LLaVA `keep_tokens` n or `retain_ratio` stands for three counts (330, 210, 62 for
    192); on Qwen `retain_ratio`, or `keep_tokens` 192, 128, 64, stands for three shares of the original tokens; without
    either, and on other backbones, the ordinary budgets hold. The spectral term is left out where the visual tokens
    fill no grid: several images, or on Video-LLaVA unless there are `clse_grid_t * clse_grid_h * clse_grid_w`.
    """

    def __init__(self) -> None:
        self._count: int | None = None

    def check(self, config: VTRConfig) -> None:
        if config.backbone.name == "llava_next":
            raise UnsupportedModel("PriorTR's CLSE rejects LLaVA-NeXT, whose tokens fill no grid; use seeless.CLSE")

    def schedule(self, config: VTRConfig, depth: int) -> list[int]:
        if isinstance(config.prune_layer, list):
            return config.prune_layer
        if config.backbone.name == "video_llava":
            return [3]
        layers = LAYERS.get(depth)
        return layers or [1, max(1, round(0.36 * depth)), max(1, round(0.67 * depth))]

    def references(self, config: VTRConfig) -> list[int]:
        if config.ref_layers:
            return config.ref_layers
        return [2] if config.backbone.name == "video_llava" else [0]

    def compute_scores(
        self,
        attention: torch.Tensor,
        image_token_range: Range,
        config: VTRConfig,
        **ctx: Any,
    ) -> torch.Tensor:
        start, end = image_token_range
        attended = attention[:, :, -1, start:end].mean(dim=1).squeeze(0)
        step = self._step(config, ctx)
        self._count = self._budget(config, step, ctx["original_tokens"], end - start)
        grid, before = self._grid(config, end - start, ctx), ctx.get("z_ref")
        if step > 0 or grid is None or before is None or len(before) != end - start:
            return attended
        now = ctx["hidden_states"][:, start:end]
        softening = SOFTENING if config.backbone.name == "video_llava" else 0.0
        evolution = spectral_evolution(
            before[None].to(now.device), now, grid, config.clse_cutoff_ratio, config.clse_temp, softening
        )
        return evolution[0].to(attended.device) * attended

    def select_tokens(self, scores: torch.Tensor, num_tokens: int, config: VTRConfig) -> torch.Tensor:
        if self._count is None:
            return super().select_tokens(scores, num_tokens, config)
        if config.keep_tokens is None and config.retain_ratio is None and config.score_threshold is not None:
            return above(scores, float(config.score_threshold))  # type: ignore[arg-type]
        return best(scores, min(self._count, num_tokens))

    @staticmethod
    def _step(config: VTRConfig, ctx: dict) -> int:
        """Which cut this is; on Qwen in the order given, elsewhere in that of the layers."""
        if config.backbone.least or not isinstance(config.prune_layer, list):
            return ctx["step"]
        return config.prune_layers.index(ctx["score_layer"] + 1)

    def _grid(self, config: VTRConfig, visual: int, ctx: dict) -> tuple[int, int, int] | None:
        if config.backbone.name == "video_llava":
            own = config.clse_grid_t, config.clse_grid_h, config.clse_grid_w
            return own if own[0] * own[1] * own[2] == visual else None
        grid = ctx.get("grid_thw")
        return grid if grid is not None and min(grid[1:]) > 1 else None

    def _budget(self, config: VTRConfig, step: int, original: int, visual: int) -> int | None:
        """Tokens of a cut where a preset says so, else None."""
        backbone, ratio = config.backbone, config.retain_ratio
        tokens: Any = config.keep_tokens
        if backbone.name == "llava":
            if ratio is not None and config.keep_tokens in (None, backbone.keep_tokens):
                tokens = next((n for n, r in SAME.items() if r == ratio), round(FULL * ratio))
            if tokens is None:
                return None
            presets = COUNTS.get(tokens, tuple(int(tokens * share) for share in SHARES))
            return self._stage(presets, step)
        if ratio is None:
            ratio = SAME.get(tokens) if backbone.least else None
        if ratio is None:
            return None
        share = self._stage(RATIOS.get(ratio, tuple(ratio * share for share in SHARES)), step)
        return max(1, int(original * share))

    @staticmethod
    def _stage(presets: tuple, step: int) -> Any:
        if step >= len(presets):
            raise BudgetError(f"CLSE's presets are for {len(presets)} cuts; give prune_layer no more than that")
        return presets[step]
