"""Cosmos 3: Omni is a Qwen3-VL; Edge has a plain tower and patches of one frame."""

from transformers import (
    Cosmos3EdgeConfig,
    Cosmos3EdgeForConditionalGeneration,
    Cosmos3OmniConfig,
    Cosmos3OmniForConditionalGeneration,
)

from .base import Piece, normal, text_options, tower_options
from .qwen2_vl import IMAGE_GRIDS, MARKERS, MERGE, PATCH, ROPE, VIDEO_GRIDS
from .qwen3_vl import Qwen3VL, qwen3_text, qwen3_tower


class Cosmos3Omni(Qwen3VL):
    name = "cosmos3_omni"
    model_class = Cosmos3OmniForConditionalGeneration
    sparse = True

    def config(self):
        text = {"model_type": "qwen3_vl_text", **qwen3_text()}
        tower = {"model_type": "qwen3_vl_vision", **qwen3_tower()}
        return Cosmos3OmniConfig(text_config=text, vision_config=tower, tie_word_embeddings=False, **MARKERS)


class Cosmos3Edge(Qwen3VL):
    name = "cosmos3_edge"
    model_class = Cosmos3EdgeForConditionalGeneration
    sparse = True

    def config(self):
        return Cosmos3EdgeConfig(
            text_config=text_options(rope_parameters={**ROPE, "mrope_interleaved": True}),
            vision_config=tower_options(patch_size=PATCH, num_patches=64, spatial_merge_size=MERGE),
            projector_hidden_size=48,
            tie_word_embeddings=False,
            **MARKERS,
        )

    def image(self, seed: int) -> Piece:
        return self._of_one_frame(super().image(seed), "pixel_values", IMAGE_GRIDS[seed % 4], seed)

    def video(self, seed: int) -> Piece:
        return self._of_one_frame(super().video(seed), "pixel_values_videos", VIDEO_GRIDS[seed % 4], 1000 + seed)

    def _of_one_frame(self, piece: Piece, name: str, grid, seed: int) -> Piece:
        piece.data[name] = normal((grid[0] * grid[1] * grid[2], 3 * PATCH * PATCH), seed)
        return piece
