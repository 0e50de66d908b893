"""GLM-4.1V, 4.5V, 4.6V and GLM-OCR: Qwen2-VL's pictures; half of every head is turned, neighbours in pairs."""

from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    GlmgaConfig,
    GlmOcrConfig,
    GlmOcrForConditionalGeneration,
)

from .base import END, IMAGE, START, VIDEO
from .qwen2_vl import MERGE, PATCH, ROPE, TEMPORAL, Qwen2VL, qwen_text

HALF = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
MARKERS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "image_start_token_id": START, "image_end_token_id": END}


class Glm4V(Qwen2VL):
    name = "glm4v"
    kinds = ("image",)
    model_class = Glm4vForConditionalGeneration
    config_class = Glm4vConfig
    sparse = True
    text = {"rope_parameters": HALF}

    def config(self):
        return self.config_class(
            text_config={**qwen_text(), **self.text},
            vision_config={
                "depth": 3,
                "hidden_size": 32,
                "intermediate_size": 48,
                "out_hidden_size": 64,
                "num_heads": 4,
                "image_size": 32,
                "patch_size": PATCH,
                "spatial_merge_size": MERGE,
                "temporal_patch_size": TEMPORAL,
            },
            tie_word_embeddings=False,
            **MARKERS,
        )


class Glm4VMoe(Glm4V):
    name = "glm4v_moe"
    model_class = Glm4vMoeForConditionalGeneration
    config_class = Glm4vMoeConfig

    def kernels(self, backend: str):
        # its layers hand coordinates to their kernel, which flash attention takes for packed sequences, cut or not
        return "sdpa" if backend == "fused" else backend

    text = {
        "rope_parameters": HALF,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "first_k_dense_replace": 1,
        "head_dim": 16,
    }


class Glm46V(Glm4V):
    name = "glm46v"
    model_class = Glm46VForConditionalGeneration
    config_class = Glm46VConfig


class Glmga(Glm46V):
    name = "glmga"
    config_class = GlmgaConfig


class GlmOcr(Glm4V):
    name = "glm_ocr"
    model_class = GlmOcrForConditionalGeneration
    config_class = GlmOcrConfig
    text = {"rope_parameters": ROPE}
