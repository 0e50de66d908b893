"""LFM3-VL: convolutions between layers with attention, in the decoder and in the tower."""

from seeless.core.family import Family

FAMILY = Family(
    title="LFM3-VL",
    model_types=("lfm3_vl",),
    final_norm="embedding_norm",
    feed_forward="feed_forward",
    tower_layers=("layers",),
    merge="vision_config.spatial_merge_size",
    merged="consecutive",
    projected=False,
    grids={"image": "image_grid_thw", "video": "video_grid_thw"},
    video_token="video_token_id",
    note="the first decoder layers have no attention, so methods that read it act before layer 3 at the earliest",
)
