"""Qwen3-VL with a mixture of experts."""

from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

from .qwen2_vl import MARKERS
from .qwen3_vl import Qwen3VL, qwen3_text, qwen3_tower


class Qwen3VLMoe(Qwen3VL):
    name = "qwen3_vl_moe"
    model_class = Qwen3VLMoeForConditionalGeneration

    def config(self):
        return Qwen3VLMoeConfig(
            text_config=qwen3_text(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48),
            vision_config=qwen3_tower(),
            tie_word_embeddings=False,
            **MARKERS,
        )
