"""DeepSeek-VL 7B: a second tower, of SAM's kind, beside the first, feature beside feature."""

from dataclasses import replace

from seeless.families.deepseek_vl import FAMILY as DEEPSEEK_VL

FAMILY = replace(
    DEEPSEEK_VL,
    title="DeepSeek-VL hybrid",
    model_types=("deepseek_vl_hybrid",),
    projected=False,
    note="the first tower is read and counted; merging inside it leaves a merged token its own features of the second",
)
