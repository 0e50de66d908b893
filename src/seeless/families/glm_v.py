"""GLM-4.1V, 4.5V (mixture of experts), 4.6V and GLM-OCR: built as Qwen2-VL, with a convolution ahead of the merger."""

from dataclasses import replace

from seeless.families.qwen2_vl import FAMILY as QWEN2_VL

FAMILY = replace(
    QWEN2_VL,
    title="GLM-4.1V to 4.6V, GLM-OCR",
    model_types=("glm4v", "glm4v_moe", "glm46v", "glmga", "glm_ocr"),
    video_token="image_token_id",
    note="frames of a video have the placeholders of images, so the model takes no images beside videos",
)
