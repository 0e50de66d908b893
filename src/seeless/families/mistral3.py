"""Mistral Small 3.1 and later: the Pixtral tower, pictures of any size, four patches to a token."""

from seeless.core.family import Family

FAMILY = Family(
    title="Mistral 3",
    model_types=("mistral3",),
    merge="spatial_merge_size",
    projected=False,
    sizes="image_sizes",
)
