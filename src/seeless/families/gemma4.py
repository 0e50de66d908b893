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
    layer_inputs=("per_layer_inputs", "per_layer_input"),
    both_ways=("sliding_attention",),
    both_ways_if=("use_bidirectional_attention", "vision"),
    token_types="mm_token_type_ids",
    note="sound goes past untouched; attention must be eager or sdpa; on E2B and E4B tokens leave at the entry or in "
    "early layers, as later ones take keys and values of those before them",
)
