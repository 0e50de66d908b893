"""Qwen3-Omni's thinker: Qwen3-VL that hears, too; tokens of sound stay as they are."""

from dataclasses import replace

from seeless.families.qwen3_vl import FAMILY as QWEN3_VL

FAMILY = replace(
    QWEN3_VL,
    title="Qwen3-Omni",
    model_types=("qwen3_omni_moe_thinker",),
    note="the thinker, Qwen3OmniMoeThinkerForConditionalGeneration; of a whole model give model.thinker",
)
