"""Mistral 3: a Pixtral tower, 2 x 2 patches merged into a token, and a break token after every row of tokens."""

from transformers import Mistral3Config, Mistral3ForConditionalGeneration

from .base import IMAGE, Piece, Tiny
from .llava import decoder, pad_images, pixtral, pixtral_piece


class Mistral3(Tiny):
    name = "mistral3"
    model_class = Mistral3ForConditionalGeneration

    def kernels(self, backend: str):
        # Pixtral hands its kernel a 4-D mask unless that is called flash attention
        return {"text_config": backend, "vision_config": "sdpa"} if backend == "fused" else backend

    def config(self):
        return Mistral3Config(
            text_config=decoder("mistral", 2),
            vision_config=pixtral(),
            image_token_index=IMAGE,
            spatial_merge_size=2,
            vision_feature_layer=-1,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return pixtral_piece(seed, 8)

    def collate(self, pieces, ids, mask) -> dict:
        return pad_images(pieces["image"])
