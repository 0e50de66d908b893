"""Video-LLaVA: a tower for images and one for videos, whose frames bring their class tokens along."""

from seeless.core.family import Family

FAMILY = Family(
    title="Video-LLaVA",
    model_types=("video_llava",),
    tower="image_tower",
    video_tower="video_tower",
    video_token="video_token_id",
    checkpoints={"LanguageBind/Video-LLaVA-7B": "LanguageBind/Video-LLaVA-7B-hf"},
    note="every frame has its class token among the visual tokens; ranking crops drops it unless newlines=True",
)
