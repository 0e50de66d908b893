"""DeepSeek-VL and Janus: a tower without a class token, one grid of 4 x 4 tokens per image."""

from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    JanusConfig,
    JanusForConditionalGeneration,
)

from .base import IMAGE, Piece, Tiny, grids, normal, siglip, tower_options
from .llava import decoder


class DeepseekVL(Tiny):
    name = "deepseek_vl"
    model_class = DeepseekVLForConditionalGeneration
    sparse = True

    def config(self):
        return DeepseekVLConfig(
            text_config=decoder("llama", 2),
            vision_config=siglip(32, 8),
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return Piece([IMAGE] * 16, {"pixel_values": normal((1, 3, 32, 32), seed)}, grids(1, 4, 4))


class Janus(DeepseekVL):
    name = "janus"
    model_class = JanusForConditionalGeneration

    def config(self):
        tower = tower_options(image_size=32, patch_size=8, projection_dim=64, num_image_tokens=16)
        del tower["intermediate_size"]
        return JanusConfig(
            text_config=decoder("llama", 2),
            vision_config=tower,
            vq_config={
                "num_embeddings": 16,
                "latent_channels": 32,
                "base_channels": 32,
                "channel_multiplier": [1],
                "num_res_blocks": 1,
                "num_patches": 16,
                "projection_dim": 64,
                "image_token_embed_dim": 64,
            },
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )
