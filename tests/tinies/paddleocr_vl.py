"""PaddleOCR-VL: pictures of any size, patches as pixels in the order of the picture, 2 x 2 of them to a token."""

import torch
from transformers import PaddleOCRVLConfig, PaddleOCRVLForConditionalGeneration

from .base import END, IMAGE, START, Piece, Tiny, grids, normal, text_options, tower_options
from .qwen2_vl import IMAGE_GRIDS, MARKERS, MERGE, PATCH, ROPE


class PaddleOCRVL(Tiny):
    name = "paddleocr_vl"
    model_class = PaddleOCRVLForConditionalGeneration
    new_token_types = {"mm_token_type_ids": 0}
    sparse = True

    def config(self):
        return PaddleOCRVLConfig(
            text_config=text_options(rope_parameters=dict(ROPE)),
            vision_config=tower_options(image_size=32, patch_size=PATCH, spatial_merge_size=MERGE),
            tie_word_embeddings=False,
            **MARKERS,
        )

    def image(self, seed: int) -> Piece:
        grid = IMAGE_GRIDS[seed % 4]
        height, width = grid[1] // MERGE, grid[2] // MERGE
        data = {
            "pixel_values": normal((grid[1] * grid[2], 3, PATCH, PATCH), seed),
            "image_grid_thw": torch.tensor([grid]),
        }
        return Piece([START] + [IMAGE] * (height * width) + [END], data, grids(1, height, width))

    def collate(self, pieces, ids, mask) -> dict:
        return {**super().collate(pieces, ids, mask), "mm_token_type_ids": (ids == IMAGE).int()}
