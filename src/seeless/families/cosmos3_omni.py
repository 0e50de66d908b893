"""Cosmos 3 Omni, as a reader of pictures and videos: Qwen3-VL."""

from dataclasses import replace

from seeless.families.qwen3_vl import FAMILY as QWEN3_VL

FAMILY = replace(QWEN3_VL, title="Cosmos 3 Omni", model_types=("cosmos3_omni",))
