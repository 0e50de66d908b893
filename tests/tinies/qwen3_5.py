"""Qwen3.5: linear attention between layers with attention, whose queries come with a gate; no deepstack."""

import torch
from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

from .base import LAYERS
from .qwen2_vl import MARKERS, ROPE
from .qwen3_vl import Qwen3VL, qwen3_text, qwen3_tower

LINEAR, FULL = "linear_attention", "full_attention"


def qwen3_5_text(**options) -> dict:
    options = {"layer_types": [LINEAR, FULL, LINEAR, LINEAR, FULL, LINEAR], **options}
    assert len(options["layer_types"]) == LAYERS
    return {
        **qwen3_text(),
        "head_dim": 32,
        "rope_parameters": {**ROPE, "mrope_interleaved": True, "partial_rotary_factor": 0.5},
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        **options,
    }


def qwen3_5_tower() -> dict:
    options = qwen3_tower()
    del options["deepstack_visual_indexes"]
    return options


@torch.no_grad()
def linear_memory(model, tower: str):
    """The model with a memory of many tokens in its linear attention, whose norm would make noise of a single one's,
    and with smaller weights where attention's kernels round differently."""
    for layer in model.model.language_model.layers:
        if hasattr(layer, "linear_attn"):
            layer.linear_attn.A_log.copy_(torch.linspace(-5, -2, len(layer.linear_attn.A_log)))
            layer.linear_attn.norm.weight.mul_(0.25)
            layer.linear_attn.conv1d.weight.mul_(3)
    for name, parameter in model.named_parameters():
        if name.endswith("down_proj.weight") or (tower in name and parameter.ndim > 1):
            parameter.mul_(0.6)
    return model


class Qwen35(Qwen3VL):
    name = "qwen3_5"
    model_class = Qwen3_5ForConditionalGeneration

    def config(self):
        return Qwen3_5Config(
            text_config=qwen3_5_text(), vision_config=qwen3_5_tower(), tie_word_embeddings=False, **MARKERS
        )

    def build(self, backend="eager", dtype=torch.float32):
        return linear_memory(super().build(backend, dtype), "visual.blocks")
