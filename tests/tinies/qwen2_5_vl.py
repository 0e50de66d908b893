"""Qwen2.5-VL: as Qwen2-VL, with attention inside windows of 2 x 2 tokens in half of the tower's layers.

Positions in a video follow the seconds.
"""

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from .base import Piece
from .qwen2_vl import MARKERS, MERGE, PATCH, TEMPORAL, Qwen2VL, qwen_text


class Qwen25VL(Qwen2VL):
    name = "qwen2_5_vl"
    model_class = Qwen2_5_VLForConditionalGeneration

    def config(self):
        return Qwen2_5_VLConfig(
            text_config=qwen_text(),
            vision_config={
                "depth": 4,
                "hidden_size": 32,
                "intermediate_size": 48,
                "out_hidden_size": 64,
                "num_heads": 4,
                "patch_size": PATCH,
                "spatial_merge_size": MERGE,
                "temporal_patch_size": TEMPORAL,
                "tokens_per_second": 2,
                "window_size": 2 * MERGE * PATCH,
                "fullatt_block_indexes": [1, 3],
            },
            tie_word_embeddings=False,
            **MARKERS,
        )

    def video(self, seed: int) -> Piece:
        piece = super().video(seed)
        piece.data["second_per_grid_ts"] = torch.tensor([[1.0, 0.5][seed % 2]])
        return piece
