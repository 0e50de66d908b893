"""ERNIE 4.5 VL: Qwen2-VL's pictures; visual tokens and text have experts of their own, told by types of tokens."""

from seeless.core.family import Family

FAMILY = Family(
    title="ERNIE 4.5 VL",
    model_types=("ernie4_5_vl_moe",),
    projector="resampler_model",
    tower_layers=("blocks",),
    merge="vision_config.spatial_merge_size",
    merged="consecutive",
    projected=False,
    grids={"image": "image_grid_thw", "video": "video_grid_thw"},
    video_token="video_token_id",
    merged_frames="vision_config.temporal_merge_size",
    mrope=True,
    layer_inputs=("moe_mm_token_type_ids", "moe_mm_token_type_ids"),
    modal_experts=("text_moe", "vision_moe"),
    note="two frames of a video make one; they are one frame to the scopes",
)
