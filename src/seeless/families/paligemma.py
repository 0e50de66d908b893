"""PaliGemma: the whole prompt sees itself, as in a prefix language model."""

from seeless.core.family import Family

FAMILY = Family(
    title="PaliGemma",
    model_types=("paligemma",),
    both_ways=("full_attention", "sliding_attention"),
    prefix=True,
    note="no token of the prompt is blind to the question, so methods that need one do not work; "
    "attention must be eager or sdpa",
)
