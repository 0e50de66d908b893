"""LLaVA-NeXT: the base crop, then all tiles as one unpadded grid with newlines."""

import torch
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from .anyres import best_tiles, layout
from .base import IMAGE, Piece, Tiny, clip, normal
from .llava import decoder


def pinpoints(crop: int) -> list[list[int]]:
    return [[crop, 2 * crop], [2 * crop, crop], [2 * crop, 2 * crop]]


def tiled_piece(seed: int, size, crop: int, side: int, limit: int | None = None) -> Piece:
    tiles = best_tiles(size, pinpoints(crop), crop)
    tokens, crops = layout(size, tiles, side, limit)
    pixels = normal((1 + tiles[0] * tiles[1], 3, crop, crop), seed)
    return Piece([IMAGE] * tokens, {"pixel_values": pixels, "image_sizes": torch.tensor([size])}, crops)


def stack_tiles(pieces: list[Piece]) -> dict:
    if not pieces:
        return {}
    tiles = [piece.data["pixel_values"] for piece in pieces]
    most = max(map(len, tiles))
    padded = [torch.cat([t, t.new_zeros(most - len(t), *t.shape[1:])]) for t in tiles]
    return {"pixel_values": torch.stack(padded), "image_sizes": torch.cat([p.data["image_sizes"] for p in pieces])}


class LlavaNext(Tiny):
    model_class = LlavaNextForConditionalGeneration

    def __init__(self, kind: str, kv_heads: int):
        self.kind, self.kv_heads = kind, kv_heads
        self.name = f"llava_next-{kind}-{'mha' if kv_heads == 4 else 'gqa'}"

    def config(self):
        return LlavaNextConfig(
            text_config=decoder(self.kind, self.kv_heads),
            vision_config=clip(32, 8),
            image_token_index=IMAGE,
            image_grid_pinpoints=pinpoints(32),
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return tiled_piece(seed, [(51, 60), (30, 64), (64, 64), (64, 25)][seed % 4], 32, 4)

    def collate(self, pieces, ids, mask) -> dict:
        return stack_tiles(pieces["image"])
