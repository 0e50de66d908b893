"""Qwen2.5-Omni's thinker: Qwen2.5-VL that hears, too; tokens of sound stay as they are."""

from dataclasses import replace

from seeless.families.qwen2_5_vl import FAMILY as QWEN2_5_VL

FAMILY = replace(
    QWEN2_5_VL,
    title="Qwen2.5-Omni",
    model_types=("qwen2_5_omni_thinker",),
    note="the thinker, Qwen2_5OmniThinkerForConditionalGeneration; of a whole model give model.thinker",
)
