"""Molmo 2: a picture as a whole, and its crops as one grid, pooled by an index; all visual tokens see each other."""

from seeless.core.family import Family

FAMILY = Family(
    title="Molmo 2",
    model_types=("molmo2",),
    projector="multi_modal_projector.image_projector",
    rotary_layers="rope_scaling_layers",
    class_token_towers=(),
    tower_layers=(),
    projected=False,
    grids={"image": "image_grids", "video": "video_grids"},
    video_token="video_token_id",
    both_ways=("full_attention",),
    both_ways_joined=True,
    token_types="mm_token_type_ids",
    note="its tower is not read and not counted, as an index beside the pictures says which patches make a token; "
    "attention must be eager or sdpa; it takes no images beside videos, whose frames have the same placeholders",
)
