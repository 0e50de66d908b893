"""SigLIP's pooling head (arXiv 2303.15343): one learnt query over all patches of a picture."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

from seeless.core.family import ModelView
from seeless.errors import UnsupportedModel

KINDS = ("siglip_vision_model", "siglip2_vision_model")


class PoolingHead(NamedTuple):
    """A head, and the norm that the tower's last states go through before it."""

    norm: Any
    head: Any


def check_pooling(view: ModelView, siglip: str | None) -> None:
    """Refuse a tower that has no such head, nor can be given one.

    Raises:
        UnsupportedModel: it is no SigLIP, or has no head and none is named.
    """
    if (kind := view.config.vision_config.model_type) not in KINDS:
        raise UnsupportedModel(
            f"this strategy reads the pooling head of SigLIP, but the vision tower of this model is a {kind!r}; use a "
            "strategy that reads the tower's attention or features"
        )
    if siglip is None and getattr(view.tower("image"), "head", None) is None:
        raise UnsupportedModel(
            "the vision tower of this model came without SigLIP's pooling head (vision_use_head); pass siglip=, the "
            "folder or hub name of the SigLIP it came from (google/siglip-so400m-patch14-384 for most)"
        )


def head_of(view: ModelView, siglip: str | None, device: torch.device) -> PoolingHead:
    """The tower's own head, or on some device that of the SigLIP it came from.

    Raises:
        UnsupportedModel: the tower is no SigLIP, has no head and none is named, or another SigLIP is named.
    """
    check_pooling(view, siglip)
    if siglip is None:
        own = view.tower("image")
        return PoolingHead(own.post_layernorm, own.head)
    found = load_head(siglip)
    own_width = view.config.vision_config.hidden_size
    if (width := found.norm.weight.shape[0]) != own_width:
        raise UnsupportedModel(
            f"siglip={siglip!r} is {width} wide, but the tower of this model is {own_width}; name the SigLIP that this "
            "tower came from"
        )
    return PoolingHead(found.norm.to(device), found.head.to(device))


@cache
def load_head(siglip: str) -> PoolingHead:
    """The head of a SigLIP, float32; once per process.

    Raises:
        UnsupportedModel: there is no such model, or it has no head.
    """
    from transformers import AutoConfig, Siglip2VisionModel, SiglipVisionModel

    classes: dict[str, Any] = {"siglip": SiglipVisionModel, "siglip2": Siglip2VisionModel}
    try:
        if (kind := AutoConfig.from_pretrained(siglip).model_type.removesuffix("_vision_model")) not in classes:
            raise ValueError(f"it is of type {kind!r}")
        model: Any = classes[kind].from_pretrained(siglip, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UnsupportedModel(
            f"siglip={siglip!r} cannot be loaded as a SigLIP ({error}); give a folder or hub name that transformers' "
            "SiglipVisionModel or Siglip2VisionModel loads"
        ) from error
    if getattr(model, "head", None) is None:
        raise UnsupportedModel(f"siglip={siglip!r} has no pooling head (vision_use_head); name a whole SigLIP")
    return PoolingHead(model.post_layernorm.requires_grad_(False).eval(), model.head.requires_grad_(False).eval())


@torch.no_grad()
def through_head(pooling: PoolingHead, pictures: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a head makes of some pictures.

    Args:
        pictures: `[patches, width]` of each, what the layer that made the features gave.

    Returns:
        `[patches of all, heads]`, attention of the probe, float32, and `[pictures, width]`, what the head gives.
    """
    norm, head = pooling
    device, dtype = pictures[0].device, pictures[0].dtype
    alike = defaultdict(list)
    for number, patches in enumerate(pictures):
        alike[len(patches)].append(number)
    rows: dict[int, torch.Tensor] = {}
    vectors: dict[int, torch.Tensor] = {}
    for numbers in alike.values():
        states = norm(torch.stack([pictures[number] for number in numbers]).to(norm.weight))
        probe = head.probe.expand(len(states), -1, -1)
        weights = head.attention(probe, states, states, average_attn_weights=False)[1][:, :, 0]
        rows |= zip(numbers, weights.float().transpose(1, 2), strict=True)
        vectors |= zip(numbers, head(states).to(dtype), strict=True)
    everything = range(len(pictures))
    found = torch.cat([rows[number] for number in everything]), torch.stack([vectors[number] for number in everything])
    return found[0].to(device), found[1].to(device)
