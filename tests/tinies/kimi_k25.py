"""Kimi K2.5: patches as pixels in the order of the picture, 2 x 2 of them to a token; latent attention, experts.

Up to four frames of a video become one.
"""

import torch
import transformers
from transformers import DeepseekV3Config, Kimi_K25Config, Kimi_K25ForConditionalGeneration

from .base import END, IMAGE, START, VIDEO, Piece, Tiny, grids, normal, text_options, tower_options
from .qwen2_vl import IMAGE_GRIDS, MARKERS, MERGE, PATCH

LATENT = {
    "head_dim": 8,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}


class KimiK25(Tiny):
    name = "kimi_k25"
    model_class = Kimi_K25ForConditionalGeneration
    kinds = ("image", "video") if hasattr(transformers, "Lfm3VlConfig") else ("image",)  # older releases fail in them
    sparse = True

    def config(self):
        return Kimi_K25Config(
            text_config=DeepseekV3Config(**{**text_options(4), **LATENT}),
            vision_config=tower_options(
                patch_size=PATCH, pos_emb_height=16, pos_emb_width=16, merge_kernel_size=[MERGE, MERGE]
            ),
            projection_hidden_size=32,
            tie_word_embeddings=False,
            **MARKERS,
        )

    def image(self, seed: int) -> Piece:
        grid = IMAGE_GRIDS[seed % 4]
        height, width = grid[1] // MERGE, grid[2] // MERGE
        pixels = normal((grid[1] * grid[2], 3, PATCH, PATCH), seed)
        data = {"pixel_values": pixels, "image_grid_thw": torch.tensor([grid])}
        return Piece([START] + [IMAGE] * (height * width) + [END], data, grids(1, height, width))

    def video(self, seed: int) -> Piece:
        grid = (2 + seed % 3, *IMAGE_GRIDS[(seed + 1) % 4][1:])
        height, width = grid[1] // MERGE, grid[2] // MERGE
        pixels = normal((grid[0] * grid[1] * grid[2], 3, PATCH, PATCH), 1000 + seed)
        data = {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([grid])}
        return Piece([START] + [VIDEO] * (height * width) + [END], data, grids(1, height, width))
