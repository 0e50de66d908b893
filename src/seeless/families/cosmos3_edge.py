"""Cosmos 3 Edge: pictures of any size, four patches to a token, positions with three axes."""

from seeless.core.family import Family

FAMILY = Family(
    title="Cosmos 3 Edge",
    model_types=("cosmos3_edge",),
    tower="visual",
    projector="projector",
    merge="vision_config.spatial_merge_size",
    merged="consecutive",
    projected=False,
    grids={"image": "image_grid_thw", "video": "video_grid_thw"},
    video_token="video_token_id",
    mrope=True,
)
