"""LLaVA-NeXT-Video: LLaVA-NeXT's images, and videos whose frames are pooled before the projector."""

from seeless.core.family import Family

FAMILY = Family(
    title="LLaVA-NeXT-Video",
    model_types=("llava_next_video",),
    packer="pack_image_features",
    video_token="video_token_id",
    video_merge="spatial_pool_stride",
)
