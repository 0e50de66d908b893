"""Qwen3.5 and 3.6, dense and mixture of experts: three layers of linear attention to one with attention."""

from dataclasses import replace

from seeless.families.qwen2_vl import FAMILY as QWEN2_VL

FAMILY = replace(
    QWEN2_VL,
    title="Qwen3.5",
    model_types=("qwen3_5", "qwen3_5_moe"),
    note="the first decoder layers have no attention, so methods that read it act before layer 4 at the earliest; "
    "every frame of a video stands alone between its timestamps; all of them are one image to the scopes",
)
