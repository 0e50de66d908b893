"""DeepSeek-VL and Janus (as a reader of pictures): a SigLIP-like tower, one grid per image."""

from seeless.core.family import Family

FAMILY = Family(
    title="DeepSeek-VL, Janus",
    model_types=("deepseek_vl", "janus"),
    tower="vision_model",
    projector="aligner",
    note="Janus is reduced where it reads pictures; the pictures it draws are tokens of its vocabulary and stay",
)
