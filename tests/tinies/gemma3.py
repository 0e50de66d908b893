"""Gemma 3: bidirectional attention inside an image, sliding layers, 8 x 8 patches pooled into 4 x 4 tokens.

Pan and scan adds crops to an image, each its own run of placeholders with text before it.
"""

from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig

from .base import END, IMAGE, START, Piece, Tiny, grids, normal, siglip, text_options, words

CROPS_FOLLOW, BETWEEN, ADJACENT = 91, 92, 93  # what the text before the first crop says, and before the others


class Gemma3(Tiny):
    name = "gemma3"
    model_class = Gemma3ForConditionalGeneration
    window = 128
    new_token_types = {"token_type_ids": 0}

    def config(self):
        layers = (["sliding_attention"] * 2 + ["full_attention"]) * 2
        text = text_options(layer_types=layers, sliding_window=self.window, query_pre_attn_scalar=16)
        return Gemma3Config(
            text_config=Gemma3TextConfig(**text),
            vision_config=siglip(32, 4),
            image_token_index=IMAGE,
            boi_token_index=START,
            eoi_token_index=END,
            mm_tokens_per_image=16,
            initializer_range=0.15,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        pictures = [1, 3, 1, 1][seed % 4]  # the second: an image and two crops of it
        ids = []
        for number in range(pictures):
            text = [*words(2, 10 * seed), ADJACENT] if number == 0 else [CROPS_FOLLOW] if number == 1 else [BETWEEN] * 2
            ids += [*text, START, *[IMAGE] * 16, END]
        return Piece(ids, {"pixel_values": normal((pictures, 3, 32, 32), seed)}, grids(pictures, 4, 4))

    def collate(self, pieces, ids, mask) -> dict:
        return {**super().collate(pieces, ids, mask), "token_type_ids": (ids == IMAGE).long()}
