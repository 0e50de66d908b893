"""The models that figures are published for, and how near each is to another model."""

import math
from dataclasses import dataclass

from seeless.models import ModelDescription


@dataclass(frozen=True)
class Published:
    """A model with published figures.

    Args:
        name: as sources print it.
        model_type: of its config; "" where `transformers` has no class for it.
        tower: `model_type` of the tower's config.
        any_size: whether a larger picture makes more visual tokens.
        layers, hidden: of the decoder.
    """

    name: str
    model_type: str
    tower: str
    any_size: bool
    layers: int
    hidden: int


PUBLISHED = (
    Published("LLaVA-1.5-7B", "llava", "clip_vision_model", False, 32, 4096),
    Published("LLaVA-1.5-13B", "llava", "clip_vision_model", False, 40, 5120),
    Published("LLaVA-NeXT-7B", "llava_next", "clip_vision_model", True, 32, 4096),
    Published("LLaVA-NeXT-13B", "llava_next", "clip_vision_model", True, 40, 5120),
    Published("LLaVA-NeXT-Video-7B (8 frames)", "llava_next_video", "clip_vision_model", True, 32, 4096),
    Published("LLaVA-OneVision-7B", "llava_onevision", "siglip_vision_model", True, 28, 3584),
    Published("LLaVA-Video-7B (64 frames)", "", "siglip_vision_model", True, 28, 3584),
    Published("LLaVA-Video-7B", "", "siglip_vision_model", True, 28, 3584),
    Published("Video-LLaVA-7B", "video_llava", "clip_vision_model", False, 32, 4096),
    Published("Qwen2-VL-7B", "qwen2_vl", "qwen2_vl_vision", True, 28, 3584),
    Published("Qwen2.5-VL-7B", "qwen2_5_vl", "qwen2_5_vl_vision", True, 28, 3584),
    Published("Qwen3-VL-8B", "qwen3_vl", "qwen3_vl_vision", True, 36, 4096),
    Published("InternVL3-8B", "internvl", "internvl_vision", True, 28, 3584),
)


def nearest_first(model: ModelDescription) -> list[tuple[str, str]]:
    """Names of models with published figures, the nearest first, each with what it has in common with `model`.

    The same `model_type` is nearer than another, then the same kind of tower, then whether a picture's size decides
    how many tokens it makes, then the size of the decoder.
    """
    ordered = sorted(PUBLISHED, key=lambda each: _apart(model, each))
    return [(each.name, _in_common(model, each)) for each in ordered]


def _apart(model: ModelDescription, other: Published) -> tuple[bool, bool, bool, float]:
    size = abs(math.log(model.layers * model.hidden**2 / (other.layers * other.hidden**2)))
    return (
        model.model_type != other.model_type,
        model.tower != other.tower,
        _any_size(model) != other.any_size,
        size,
    )


def _in_common(model: ModelDescription, other: Published) -> str:
    type_differs, tower_differs, size_differs, _ = _apart(model, other)
    if not type_differs:
        return f"of the same model_type, {other.model_type}"
    if not tower_differs:
        return f"with the same kind of tower, {other.tower}"
    return "with another tower" + ("" if size_differs else ", and as many tokens as the picture asks for, as here")


def _any_size(model: ModelDescription) -> bool:
    return model.visual_tokens is None or model.per == "crop"
