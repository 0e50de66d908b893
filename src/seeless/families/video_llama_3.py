"""VideoLLaMA 3: pictures of any size, a patch to a token, or as many as the processor says picture by picture."""

from seeless.core.family import Family

FAMILY = Family(
    title="VideoLLaMA 3",
    model_types=("video_llama_3",),
    tower="vision_model",
    projector="projector",
    merged="consecutive",
    projected=False,
    grids={"image": "image_grid_thw"},
    note="no videos: their processor drops tokens of its own. Merging inside the tower needs a patch to a token",
)
