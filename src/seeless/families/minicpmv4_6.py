"""MiniCPM-V 4.6: a tower that merges patches on its way, on the decoder of Qwen3.5."""

from seeless.core.family import Family

FAMILY = Family(
    title="MiniCPM-V 4.6",
    model_types=("minicpmv4_6",),
    projector="merger",
    projected=False,
    grids={"image": "target_sizes", "video": "target_sizes_videos"},
    crops="opened",
    merging_layer="insert_layer_id",
    video_token="video_token_id",
    note="the first decoder layers have no attention, so methods that read it act before layer 4 at the earliest; "
    "every slice, and every frame of a video, counts as an image of its own: keep counts for each",
)
