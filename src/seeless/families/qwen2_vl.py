"""Qwen2-VL: pictures of any size, four patches to a token, positions with three axes."""

from seeless.core.family import Family

FAMILY = Family(
    title="Qwen2-VL",
    model_types=("qwen2_vl",),
    tower="visual",
    projector="visual.merger",
    tower_layers=("blocks",),
    merge="vision_config.spatial_merge_size",
    merged="consecutive",
    projected=False,
    grids={"image": "image_grid_thw", "video": "video_grid_thw"},
    video_token="video_token_id",
    mrope=True,
)
