"""ERNIE 4.5 VL: Qwen2-VL's pictures; experts of their own for visual tokens and the markers around them.

Of two frames of a video one is made.
"""

import torch
from transformers import Ernie4_5_VLMoeConfig, Ernie4_5_VLMoeForConditionalGeneration

from .base import END, IMAGE, START, VIDEO, Piece, grids, normal, text_options
from .qwen2_vl import MERGE, PATCH, VIDEO_GRIDS, Qwen2VL

ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]}


class Ernie45VL(Qwen2VL):
    name = "ernie4_5_vl_moe"
    sparse = True
    model_class = Ernie4_5_VLMoeForConditionalGeneration
    new_token_types = {"mm_token_type_ids": 0, "moe_mm_token_type_ids": 0}

    def config(self):
        text = text_options(
            rope_parameters=dict(ROPE),
            moe_intermediate_size=[48, 32],
            moe_k=2,
            moe_num_experts=4,
            moe_num_shared_experts=1,
            mlp_layer_types=["dense"] + ["sparse"] * 5,
        )
        return Ernie4_5_VLMoeConfig(
            text_config=text,
            vision_config={
                "depth": 3,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 4,
                "patch_size": PATCH,
                "spatial_merge_size": MERGE,
            },
            image_start_token_id=START,
            image_end_token_id=END,
            image_token_id=IMAGE,
            video_start_token_id=START,
            video_end_token_id=END,
            video_token_id=VIDEO,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        piece = super().image(seed)
        grid = piece.data["image_grid_thw"][0].tolist()
        return Piece(
            piece.ids, {**piece.data, "pixel_values": normal((grid[1] * grid[2], 3 * PATCH**2), seed)}, piece.crops
        )

    def video(self, seed: int) -> Piece:
        (frames, high, wide), together = VIDEO_GRIDS[seed % 4], 2
        height, width = high // MERGE, wide // MERGE
        grid = (together * frames, high, wide)
        pixels = normal((together * frames * high * wide, 3 * PATCH**2), 1000 + seed)
        data = {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([grid])}
        return Piece(self.video_ids(seed, frames, height * width), data, grids(frames, height, width))

    def collate(self, pieces, ids, mask) -> dict:
        experts = torch.isin(ids, torch.tensor([IMAGE, VIDEO, START, END])).int()
        return {**super().collate(pieces, ids, mask), "moe_mm_token_type_ids": experts}
