"""Qwen2-VL: M-RoPE; one contiguous run of placeholders per image or video, between vision start and end."""

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from .base import END, IMAGE, START, VIDEO, Piece, Tiny, grids, normal, text_options

PATCH, MERGE, TEMPORAL = 4, 2, 2
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
IMAGE_GRIDS = [(1, 8, 8), (1, 8, 12), (1, 6, 10), (1, 12, 8)]  # (time, height, width) in patches
VIDEO_GRIDS = [(2, 8, 8), (3, 6, 8), (2, 6, 10), (3, 8, 6)]
MARKERS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END}


def qwen_text(**options) -> dict:
    options = text_options(rope_parameters=dict(ROPE), **options)
    del options["head_dim"], options["tie_word_embeddings"]
    return options


def patches(grid, seed: int) -> torch.Tensor:
    return normal((grid[0] * grid[1] * grid[2], 3 * TEMPORAL * PATCH * PATCH), seed)


class Qwen2VL(Tiny):
    name = "qwen2_vl"
    kinds = ("image", "video")
    model_class = Qwen2VLForConditionalGeneration
    new_token_types = {"mm_token_type_ids": 0}

    def config(self):
        return Qwen2VLConfig(
            text_config=qwen_text(),
            vision_config={
                "depth": 3,
                "embed_dim": 32,
                "hidden_size": 64,
                "num_heads": 4,
                "mlp_ratio": 2,
                "patch_size": PATCH,
                "spatial_merge_size": MERGE,
                "temporal_patch_size": TEMPORAL,
            },
            tie_word_embeddings=False,
            **MARKERS,
        )

    def image(self, seed: int) -> Piece:
        grid = IMAGE_GRIDS[seed % 4]
        height, width = grid[1] // MERGE, grid[2] // MERGE
        data = {"pixel_values": patches(grid, seed), "image_grid_thw": torch.tensor([grid])}
        return Piece([START] + [IMAGE] * (height * width) + [END], data, grids(1, height, width))

    def video(self, seed: int) -> Piece:
        grid = VIDEO_GRIDS[seed % 4]
        height, width = grid[1] // MERGE, grid[2] // MERGE
        data = {"pixel_values_videos": patches(grid, 1000 + seed), "video_grid_thw": torch.tensor([grid])}
        ids = self.video_ids(seed, grid[0], height * width)
        return Piece(ids, data, grids(grid[0], height, width))

    def video_ids(self, seed: int, frames: int, tokens: int) -> list[int]:
        return [START] + [VIDEO] * (frames * tokens) + [END]

    def collate(self, pieces, ids, mask) -> dict:
        types = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
        return {**super().collate(pieces, ids, mask), "mm_token_type_ids": types}
