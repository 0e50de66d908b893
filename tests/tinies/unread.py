"""Families whose tower is not read: GOT-OCR 2 with a tower of SAM's kind, and two whose towers come from timm.

timm is not among the tests' packages; towers of transformers that give the same stand in for its.
"""

from transformers import (
    CLIPVisionConfig,
    ConvNextConfig,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    GotOcr2Config,
    GotOcr2ForConditionalGeneration,
    PerceptionLMConfig,
    PerceptionLMForConditionalGeneration,
    PPChart2TableConfig,
)

from .base import IMAGE, VIDEO, Piece, Tiny, grids, normal, tower_options
from .llava import decoder


class Unread(Tiny):
    sparse = unread = True

    def kernels(self, backend: str):
        return {"text_config": backend, "vision_config": "eager"}


class GotOcr2(Unread):
    name = "got_ocr2"
    model_class = GotOcr2ForConditionalGeneration
    config_class = GotOcr2Config

    def config(self):
        tower = tower_options(
            image_size=64, patch_size=4, output_channels=16, window_size=3, global_attn_indexes=[1], mlp_dim=48
        )
        del tower["intermediate_size"]
        return self.config_class(
            text_config=decoder("qwen2", 2),
            vision_config={**tower, "initializer_range": 0.1},
            image_token_index=IMAGE,
            image_token_id=IMAGE,
            image_seq_length=16,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return Piece([IMAGE] * 16, {"pixel_values": normal((1, 3, 64, 64), seed)}, grids(1, 4, 4))


class PPChart2Table(GotOcr2):
    name = "pp_chart2table"
    config_class = PPChart2TableConfig


class FastVlm(Unread):
    """A ConvNeXt gives the map of features that timm's FastViT gives."""

    name = "fast_vlm"
    model_class = FastVlmForConditionalGeneration

    def config(self):
        tower = ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, patch_size=4, image_size=32)
        tower.hidden_size = 32
        return FastVlmConfig(
            text_config=decoder("qwen2", 2),
            vision_config=tower,
            image_token_index=IMAGE,
            image_seq_length=16,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return Piece([IMAGE] * 16, {"pixel_values": normal((1, 3, 32, 32), seed)}, grids(1, 4, 4))


class PerceptionLM(Unread):
    """A CLIP gives a class token and one vector per patch, as timm's tower does; 2 x 2 are pooled later."""

    name = "perception_lm"
    kinds = ("image", "video")
    model_class = PerceptionLMForConditionalGeneration

    def config(self):
        tower = CLIPVisionConfig(**tower_options(image_size=32, patch_size=4))
        tower.model_args = {"embed_dim": 32}
        return PerceptionLMConfig(
            text_config=decoder("llama", 2),
            vision_config=tower,
            vision_use_cls_token=True,
            projector_pooling_ratio=2,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return Piece([IMAGE] * 16, {"pixel_values": normal((1, 1, 3, 32, 32), seed)}, grids(1, 4, 4))

    def video(self, seed: int) -> Piece:
        pixels = normal((1, 3, 3, 32, 32), 1000 + seed)  # as many frames in all videos of a batch
        return Piece([VIDEO] * 48, {"pixel_values_videos": pixels}, grids(3, 4, 4))
