"""LLaVA-OneVision: tiles like LLaVA-NeXT's, resampled when there are many; videos pooled two by two."""

from seeless.core.family import Family

FAMILY = Family(
    title="LLaVA-OneVision",
    model_types=("llava_onevision",),
    packer="pack_image_features",
    unresampled={"vision_aspect_ratio": "anyres_max_1000000"},
    video_token="video_token_id",
    video_merge=2,
    projected=False,
    note="where tiles were resampled, a token's vision signals are those of the patch nearest to its middle",
)
