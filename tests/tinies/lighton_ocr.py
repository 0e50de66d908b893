"""LightOnOCR: Mistral 3's Pixtral tower and patch merger beside a Qwen3 decoder."""

from transformers import LightOnOcrConfig, LightOnOcrForConditionalGeneration, Qwen3Config

from .base import IMAGE, text_options
from .llava import pixtral
from .mistral3 import Mistral3


class LightOnOcr(Mistral3):
    name = "lighton_ocr"
    model_class = LightOnOcrForConditionalGeneration
    sparse = True

    def config(self):
        return LightOnOcrConfig(
            text_config=Qwen3Config(**text_options(initializer_range=0.1)),
            vision_config=pixtral(),
            image_token_id=IMAGE,
            spatial_merge_size=2,
            tie_word_embeddings=False,
        )
