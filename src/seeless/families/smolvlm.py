"""SmolVLM and Idefics3: every tile a run of placeholders of its own, several patches to a token."""

from seeless.core.family import Family

FAMILY = Family(
    title="SmolVLM / Idefics3",
    model_types=("smolvlm", "idefics3"),
    language_model="text_model",
    tower="vision_model",
    projector="connector",
    merge="scale_factor",
    projected=False,
    overview=-1,
    crops="marked",
    note="every tile, and every frame of a video, counts as an image of its own: keep counts for each",
)
