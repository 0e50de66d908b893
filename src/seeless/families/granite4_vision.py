"""Granite 4 Vision: tiles as in LLaVA-NeXT; all that a picture gives enters between decoder layers."""

from seeless.core.family import Family

FAMILY = Family(
    title="Granite 4 Vision",
    model_types=("granite4_vision",),
    projector="layerwise_projectors.0",
    projectors=("layerwise_projectors", "spatial_projectors"),
    projected=False,
    feeding=("deepstack_layer_map", "spatial_vision_layer", "spatial_target_layers"),
    injected=("deepstack_features", "vision_mask"),
    embedding_scale="embedding_multiplier",
    packer="pack_image_features",
    note="what enters before decoder layer 0 counts as a picture's features, and its tower layer's attention is read; "
    "keep counts per crop for fastervlm, vispruner and pool (five crops make 5 x keep tokens)",
)
