"""DeepSeek-VL and Janus: a tower without a class token, one grid of 4 x 4 tokens per image."""

from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
    JanusConfig,
    JanusForConditionalGeneration,
    SamVisionConfig,
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


class DeepseekVLHybrid(DeepseekVL):
    name = "deepseek_vl_hybrid"
    model_class = DeepseekVLHybridForConditionalGeneration

    def config(self):
        tower = tower_options(image_size=48, patch_size=8, output_channels=8, window_size=2, global_attn_indexes=[1])
        del tower["intermediate_size"]
        return DeepseekVLHybridConfig(
            text_config=decoder("llama", 2),
            vision_config=siglip(32, 8),
            high_res_vision_config=SamVisionConfig(**tower, mlp_dim=48),
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )

    def kernels(self, backend: str):
        # SAM's tower has eager attention and sdpa
        return {"text_config": backend, "vision_config": "sdpa" if backend == "fused" else backend}

    def image(self, seed: int) -> Piece:
        piece = super().image(seed)
        piece.data["high_res_pixel_values"] = normal((1, 3, 48, 48), 100 + seed)
        return piece


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
