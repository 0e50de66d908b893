"""Aya Vision: a SigLIP tower, four patches to a token, on Cohere decoders."""

from seeless.core.family import Family

FAMILY = Family(
    title="Aya Vision",
    model_types=("aya_vision",),
    merge="downsample_factor",
    projected=False,
    overview=-1,
    crops="marked",
    note="every tile of a picture, and the one that shows it whole, is an image to this model",
)
