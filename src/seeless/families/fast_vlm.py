"""FastVLM: a convolutional tower of timm's, one grid per image."""

from seeless.core.family import Family

FAMILY = Family(
    title="FastVLM",
    model_types=("fast_vlm",),
    class_token_towers=(),
    tower_layers=(),
    note="its tower, of timm, is not read and not counted: methods that rank by the tower's attention do not work",
)
