"""InternVL 2.5 and 3 in their transformers form: tiles and a thumbnail, four patches to a token."""

from seeless.core.family import Family

FAMILY = Family(
    title="InternVL",
    model_types=("internvl",),
    tower_layers=("encoder.layer",),
    class_token_towers=("internvl_vision",),
    merge="downsample_ratio",
    runs=True,
    overview=-1,
    anchor=1,
    checkpoints={f"OpenGVLab/InternVL3-{size}": f"OpenGVLab/InternVL3-{size}-hf" for size in ("1B", "2B", "8B", "14B")},
    note="the frames of a video are images to this model, each with its own text before it",
)
