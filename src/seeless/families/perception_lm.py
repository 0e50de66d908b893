"""Perception LM: a tower of timm's, whose tokens are pooled behind the projector, tile by tile."""

from seeless.core.family import Family

FAMILY = Family(
    title="Perception LM",
    model_types=("perception_lm",),
    class_token_towers=(),
    tower_layers=(),
    projected=False,
    video_token="video_token_id",
    note="its tower, of timm, is not read and not counted; every tile is an image of its own",
)
