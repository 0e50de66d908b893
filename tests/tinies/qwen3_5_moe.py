"""Qwen3.5 with a mixture of experts and one expert that every token visits."""

from transformers import Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration

from .qwen2_vl import MARKERS
from .qwen3_5 import FULL, LINEAR, Qwen35, qwen3_5_text, qwen3_5_tower


class Qwen35Moe(Qwen35):
    name = "qwen3_5_moe"
    model_class = Qwen3_5MoeForConditionalGeneration

    def config(self):
        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
        experts |= {"shared_expert_intermediate_size": 32}
        text = qwen3_5_text(layer_types=[LINEAR, FULL, LINEAR, FULL, LINEAR, FULL], **experts)
        del text["intermediate_size"]
        return Qwen3_5MoeConfig(text_config=text, vision_config=qwen3_5_tower(), tie_word_embeddings=False, **MARKERS)
