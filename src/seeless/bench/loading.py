"""The model to be timed: a checkpoint, an embedded one, or random weights in the shape of a known one."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from seeless import models
from seeless.bench.architectures import ARCHITECTURES, scaled
from seeless.bench.prompts import image_processor
from seeless.eval.errors import InvalidRequest
from seeless.named.checkpoints import READER, load_model, resolve_name
from seeless.named.places import check_attention, check_dtype, place_of


@dataclass(frozen=True)
class Loaded:
    """A model, its image processor, and the picture to show it unless another is asked for."""

    name: str
    model: Any
    image_processor: Any
    picture: tuple[int, int]


def check_one(model: str | None, arch: str | None) -> None:
    """Raise `InvalidRequest` if both a checkpoint and an architecture are asked for."""
    if model is not None and arch is not None:
        raise InvalidRequest("give a model, or --arch for random weights, not both")


def load(
    model: str | None,
    arch: str | None,
    scale: Fraction,
    layers: int | None,
    device: str | None,
    dtype: str | None,
    attention: str,
) -> Loaded:
    """Load or build the model; the embedded `reader` where neither is asked for.

    Raises:
        InvalidRequest: both a checkpoint and an architecture are asked for, a scale or a depth without one, or more
            layers than it has.
        ImpossiblePlace: no such device, a dtype that models do not compute in, or attention that is not there.
        BudgetError: no such architecture.
        UnloadableModel: no such checkpoint.
    """
    check_one(model, arch)
    if arch is None and scale != 1:
        raise InvalidRequest("--scale is the width of --arch; a model with weights has its own")
    if arch is None and layers is not None:
        raise InvalidRequest("--layers is the depth of --arch; a model with weights has its own")
    place = place_of(device)
    check_dtype(dtype)
    check_attention(attention)
    kind = dtype or ("float32" if place.type == "cpu" else "bfloat16")
    if arch is not None:
        return _random(arch, scaled(arch, scale, layers), place, getattr(torch, kind), attention)
    loaded = load_model(resolve_name(model or READER), device=str(place), dtype=kind, attn_implementation=attention)
    processor = loaded.processor.image_processor
    return Loaded(loaded.name, loaded.model, processor, _side(loaded.model.config.vision_config))


def _random(arch: str, shape: dict[str, Any], place: torch.device, kind: torch.dtype, attention: str) -> Loaded:
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.for_model(**shape)
    torch.manual_seed(0)
    with models.naming_packages(config.model_type), torch.device(place):
        model = AutoModelForImageTextToText.from_config(config, dtype=kind, attn_implementation=attention)
    model.eval().generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    known = ARCHITECTURES[arch]
    return Loaded(arch, model, image_processor(known.processor), known.picture)


def _side(tower: Any) -> tuple[int, int]:
    size = getattr(tower, "image_size", None) or 672  # towers that take any size have none
    return (size, size) if isinstance(size, int) else (size[0], size[1])
