"""Ovis2: a grid of 4 x 4 tokens, each of 2 x 2 patches, softmax over a vocabulary of visual words."""

from transformers import Ovis2Config, Ovis2ForConditionalGeneration

from .base import IMAGE, Piece, Tiny, grids, normal, tower_options
from .llava import decoder


class Ovis2(Tiny):
    name = "ovis2"
    model_class = Ovis2ForConditionalGeneration
    never = (91, 92, 93)
    sparse = True

    def config(self):
        return Ovis2Config(
            text_config=decoder("qwen2", 2),
            vision_config=tower_options(
                image_size=32, patch_size=4, vocab_size=24, hidden_stride=2, num_visual_indicator_tokens=3
            ),
            image_token_id=IMAGE,
            visual_indicator_token_ids=[91, 92, 93],
            vocab_size=100,
            hidden_size=64,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return Piece([IMAGE] * 16, {"pixel_values": normal((1, 3, 32, 32), seed)}, grids(1, 4, 4))
