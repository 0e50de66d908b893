"""MiniCPM-V 4.6: pictures of any size in slices, packed; the tower and its merger each make one patch of four."""

import torch
from transformers import (
    MiniCPMV4_6Config,
    MiniCPMV4_6ForConditionalGeneration,
    MiniCPMV4_6VisionConfig,
    Qwen3_5TextConfig,
)

from .base import BREAK, END, IMAGE, START, VIDEO, Piece, Tiny, grids, normal, tower_options
from .qwen3_5 import linear_memory, qwen3_5_text

PATCH = 4
SLICE, END_SLICE = BREAK, 94
# The overview's sides in patches, and those of its slices.
PICTURES = [[(16, 12)], [(12, 16), (16, 12), (16, 12)], [(16, 16)], [(12, 16), (12, 12), (12, 12)]]


class MiniCPMV46(Tiny):
    name = "minicpmv4_6"
    model_class = MiniCPMV4_6ForConditionalGeneration
    config_class, vision_class = MiniCPMV4_6Config, MiniCPMV4_6VisionConfig
    markers: dict = {}

    def config(self):
        tower = tower_options(num_hidden_layers=4, image_size=64, patch_size=PATCH)
        return self.config_class(
            text_config=Qwen3_5TextConfig(**qwen3_5_text()),
            vision_config=self.vision_class(**tower),
            insert_layer_id=1,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            tie_word_embeddings=False,
            **self.markers,
        )

    def build(self, backend="eager", dtype=torch.float32):
        return linear_memory(super().build(backend, dtype), "vision_tower")

    def piece_of(self, token: int, sides: list, seed: int, pixels: str, sizes: str) -> Piece:
        ids, crops, first = [], [], 0
        for number, (height, width) in enumerate(sides):
            down, across = height // 4, width // 4
            ids += self.marked([token] * (down * across), number)
            crops += grids(1, down, across, first)
            first += down * across
        patches = sum(height * width for height, width in sides)
        return Piece(ids, {pixels: normal((1, 3, PATCH, PATCH * patches), seed), sizes: torch.tensor(sides)}, crops)

    def marked(self, tokens: list[int], number: int) -> list[int]:
        """Placeholders between the markers of an overview, or of a slice."""
        return [START, *tokens, END] if number == 0 else [SLICE, *tokens, END_SLICE]

    def image(self, seed: int) -> Piece:
        return self.piece_of(IMAGE, PICTURES[seed % 4], seed, "pixel_values", "target_sizes")

    def frames(self, seed: int) -> Piece:
        return self.piece_of(
            VIDEO, [(12, 16)] * (2 + seed % 2), 1000 + seed, "pixel_values_videos", "target_sizes_videos"
        )

    def collate(self, pieces, ids, mask) -> dict:
        data = [piece.data for own in pieces.values() for piece in own]
        names = dict.fromkeys(name for own in data for name in own)
        along = {name: -1 if "pixel" in name else 0 for name in names}
        return {name: torch.cat([own[name] for own in data if name in own], dim) for name, dim in along.items()}
