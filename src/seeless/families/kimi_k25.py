"""Kimi K2.5: pictures of any size, four patches to a token, a DeepSeek-V3 decoder."""

from seeless.core.family import Family

FAMILY = Family(
    title="Kimi K2.5",
    model_types=("kimi_k25",),
    projector="mm_projector",
    tower_layers=("layers",),
    merge="vision_config.merge_kernel_size",
    projected=False,
    grids={"image": "image_grid_thw", "video": "video_grid_thw"},
    video_token="video_token_id",
    merged_frames="vision_config.pos_emb_time",
    frames_attend=True,
    note="four frames of a video are averaged to one, which is a video of its own to the scopes",
)
