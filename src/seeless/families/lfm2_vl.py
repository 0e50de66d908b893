"""LFM2-VL: convolutions between layers with attention; pictures of any size, filled up in the tower."""

from seeless.core.family import Family

FAMILY = Family(
    title="LFM2-VL",
    model_types=("lfm2_vl",),
    final_norm="embedding_norm",
    feed_forward="feed_forward",
    merge="downsample_factor",
    projected=False,
    grids={"image": "spatial_shapes"},
    padded=True,
    overview=-1,
    crops="numbered",
    note="the first decoder layers have no attention, so methods that read it act before layer 3 at the earliest; "
    "every tile counts as an image of its own: keep counts for each",
)
