"""SmolVLM: `pixel_values` row by row, padded with black tiles; every tile its own run of placeholders behind text."""

import torch
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

from .base import END, IMAGE, START, Piece, Tiny, by_row, grids, normal, tower_options, words
from .llava import decoder

GLOBAL = 94  # before the whole picture, in place of a tile's row and column


class SmolVLM(Tiny):
    name = "smolvlm"
    model_class = SmolVLMForConditionalGeneration
    config_class = SmolVLMConfig

    def config(self):
        return self.config_class(
            text_config=decoder("llama", 2),
            vision_config=tower_options(image_size=32, patch_size=4, initializer_range=0.3),
            image_token_id=IMAGE,
            scale_factor=2,
            tie_word_embeddings=False,
            pad_token_id=0,
        )

    def image(self, seed: int) -> Piece:
        tiles = [1, 3, 1, 5][seed % 4]  # 2 or 4 tiles and the whole image
        ids = []
        for tile in range(tiles):
            mark = [GLOBAL] if tile == tiles - 1 else words(1, 10 * seed + tile)
            ids += [START, *mark, *[IMAGE] * 16]  # <fake_token><row_r_col_c> placeholders
        return Piece([*ids, END], {"pixel_values": normal((tiles, 3, 32, 32), seed)}, grids(tiles, 4, 4))

    def collate(self, pieces, ids, mask) -> dict:
        if not pieces["image"]:
            return {}
        rows = [[p.data["pixel_values"] for p in row] for row in by_row(pieces["image"], ids)]
        rows = [torch.cat(row) if row else torch.zeros(0, 3, 32, 32) for row in rows]
        most = max(map(len, rows))
        pixels = torch.stack([torch.cat([row, row.new_zeros(most - len(row), 3, 32, 32)]) for row in rows])
        real = torch.tensor([[i < len(row) for i in range(most)] for row in rows])
        return {"pixel_values": pixels, "pixel_attention_mask": real[..., None, None].expand(-1, -1, 32, 32).long()}
