"""Qwen3-VL, dense and mixture of experts: features of three tower layers added after the first decoder layers."""

from dataclasses import replace

from seeless.families.qwen2_vl import FAMILY as QWEN2_VL

FAMILY = replace(
    QWEN2_VL,
    title="Qwen3-VL",
    model_types=("qwen3_vl", "qwen3_vl_moe"),
    injected=("deepstack_visual_embeds", "visual_pos_masks"),
    tower_readers="deepstack_merger_list",
    note="every frame of a video stands alone between its timestamps; all of them are one image to the scopes",
)
