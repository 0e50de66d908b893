"""VideoLLaMA 3: pictures of any size, a patch to a token, or as many as the processor says picture by picture."""

from seeless.core.family import Family

FAMILY = Family(
    title="VideoLLaMA 3",
    model_types=("video_llama_3",),
    tower="vision_model",
    projector="projector",
    merged="consecutive",
    projected=False,
    grids={"image": "image_grid_thw", "video": "video_grid_thw"},
    video_token="video_token_id",
    left_out="video_compression_mask",
    note="of videos the processor leaves tokens out before, and budgets count the rest; merging inside the tower needs "
    "a patch to a token",
)
