"""Gemma 4: pictures of any shape, padded in the tower; in sliding layers visual tokens see each other both ways."""

from seeless.core.family import Family

FAMILY = Family(
    title="Gemma 4",
    model_types=("gemma4",),
    projector="embed_vision",
    merge="vision_config.pooling_kernel_size",
    places={"image": "image_position_ids", "video": "video_position_ids"},
    frames="num_frames_per_video",
    video_token="video_token_id",
    both_ways=("sliding_attention",),
    both_ways_if=("use_bidirectional_attention", "vision"),
    token_types="mm_token_type_ids",
    note="sound goes past untouched; attention must be eager or sdpa where visual tokens see each other both ways",
)
