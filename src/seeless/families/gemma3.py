"""Gemma 3: visual tokens of an image see each other both ways; most layers look back a window only."""

from seeless.core.family import Family

FAMILY = Family(
    title="Gemma 3",
    model_types=("gemma3",),
    tokens="mm_tokens_per_image",
    projected=False,
    crops="told",
    crops_told=("here are some crops to help you see better",),
    both_ways=("full_attention", "sliding_attention"),
    note="attention must be eager or sdpa",
)
