"""Qwen2.5-VL: Qwen2-VL with attention windows in the tower."""

from dataclasses import replace

from seeless.families.qwen2_vl import FAMILY as QWEN2_VL

FAMILY = replace(QWEN2_VL, title="Qwen2.5-VL", model_types=("qwen2_5_vl",), windows=True)
