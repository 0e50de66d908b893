"""Aya Vision and Command A Vision: 8 x 8 patches merged into 4 x 4 tokens; Cohere 2 decoders with sliding layers.

Every tile is a run of placeholders of its own.
"""

from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    Cohere2Config,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
)

from .base import BREAK, END, IMAGE, START, Piece, Tiny, grids, normal, siglip, text_options

LAYER_KINDS = (["sliding_attention"] * 2 + ["full_attention"]) * 2
TILE, GLOBAL = 94, 93


def cohere2():
    return Cohere2Config(**text_options(layer_types=LAYER_KINDS, sliding_window=128, logit_scale=1.0))


class AyaVision(Tiny):
    name = "aya_vision"
    model_class = AyaVisionForConditionalGeneration

    def config(self):
        return AyaVisionConfig(
            text_config=cohere2(),
            vision_config=siglip(32, 4),
            image_token_index=IMAGE,
            tie_word_embeddings=False,
        )

    def tiles(self, count: int) -> list[int]:
        """The last one shows the whole."""
        shown = [IMAGE] * 16
        return [*[TILE, *shown] * (count - 1), GLOBAL, *shown]

    def image(self, seed: int) -> Piece:
        tiles = [1, 3, 1, 3][seed % 4]  # two, and the one that shows all
        ids = [START, *self.tiles(tiles), END]
        return Piece(ids, {"pixel_values": normal((tiles, 3, 32, 32), seed)}, grids(tiles, 4, 4))


class Cohere2Vision(AyaVision):
    name = "cohere2_vision"
    model_class = Cohere2VisionForConditionalGeneration

    def config(self):
        return Cohere2VisionConfig(
            text_config=cohere2(),
            vision_config=siglip(32, 4),
            image_token_id=IMAGE,
            alignment_intermediate_size=96,
            tie_word_embeddings=False,
        )

    def tiles(self, count: int) -> list[int]:
        return [*[IMAGE] * 16, BREAK] * count
