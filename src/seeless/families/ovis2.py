"""Ovis2: every token is a mixture of the rows of a table of visual words; two or one patches per side make one."""

from seeless.core.family import Family

FAMILY = Family(
    title="Ovis2",
    model_types=("ovis2",),
    projector="visual_embeddings_table",
    tower_layers=("transformer.encoder.layers",),
    merge="vision_config.hidden_stride",
    projected=False,
)
