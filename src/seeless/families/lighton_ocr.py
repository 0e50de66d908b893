"""LightOnOCR: Mistral 3's Pixtral tower and projector under other names."""

from dataclasses import replace

from seeless.families.mistral3 import FAMILY as MISTRAL3

FAMILY = replace(
    MISTRAL3,
    title="LightOnOCR",
    model_types=("lighton_ocr",),
    tower="vision_encoder",
    projector="vision_projection",
)
