"""Videos to time a model with, as raw tensors: what the tower takes in, without a video processor."""

from typing import Any

import torch

import seeless as sl
from seeless import models


def video(model: Any, frames: int, picture: tuple[int, int]) -> dict[str, torch.Tensor]:
    """`get_video_features`' arguments for one video of noise, on the model's device.

    Towers that take any size get frames of the size asked for, rounded to whole tokens, and one more where they take
    an even number; others frames of their own size.

    Raises:
        UnsupportedModel: the model takes no videos of their own, or in a form that is not known here.
    """
    family, tower = models.family_named(model.config.model_type), model.config.vision_config
    if family.video_token is None:
        raise sl.UnsupportedModel(
            f"{family.title} takes no videos of their own; give frames as pictures: --images {frames}"
        )
    grid = family.grids.get("video")
    if family.places or (family.grids and grid != "video_grid_thw"):
        raise sl.UnsupportedModel(f"videos of {family.title} are in a form that cannot be made here; give pictures")
    generator = torch.Generator().manual_seed(0)
    if grid is None:
        side = tower.image_size if isinstance(tower.image_size, int) else tower.image_size[0]
        noise = torch.randn(1, frames, 3, side, side, generator=generator)
        return {"pixel_values_videos": noise.to(model.device, model.dtype)}
    patch, merge, deep = tower.patch_size, tower.spatial_merge_size, tower.temporal_patch_size
    high, wide = (max(1, round(side / (patch * merge))) * merge for side in picture)
    slices = -(-frames // deep)
    noise = torch.randn(slices * high * wide, 3 * deep * patch * patch, generator=generator)
    sizes = torch.tensor([[slices, high, wide]], device=model.device)
    return {"pixel_values_videos": noise.to(model.device, model.dtype), grid: sizes}


def layouts(slices: int, tokens: int) -> list[list[int]]:
    """How the placeholders of a video may lie: in one run, or in one for each slice of frames.

    >>> layouts(2, 8), layouts(1, 8)
    ([[8], [4, 4]], [[8]])
    """
    return [[tokens], *([[tokens // slices] * slices] if slices > 1 and tokens % slices == 0 else [])]
