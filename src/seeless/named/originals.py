"""Checkpoints in the format of LLaVA's own code, which `transformers` reads as something else."""

from typing import Any

from seeless.errors import brief
from seeless.named.errors import UnloadableModel

MARK = "mm_vision_tower"  # in configs of that code, and in no other


def refuse_original(name: str, config: dict[str, Any]) -> None:
    """Refuse a checkpoint of LLaVA's own code.

    Its config may have the `model_type` "llava", and has none of the sizes by the names that `transformers` knows, so
    that every size would silently be the default's.

    Args:
        config: the content of its `config.json`.

    Raises:
        UnloadableModel: it is one.
    """
    if MARK not in config:
        return
    raise UnloadableModel(
        f"{brief(name)} is in the format of LLaVA's own code (its config has {MARK}), which transformers cannot load. "
        "Of released checkpoints there are conversions (llava-hf/llava-1.5-7b-hf, llava-hf/llava-1.5-13b-hf, "
        "llava-hf/llava-v1.6-vicuna-7b-hf, ...); convert one of your own with transformers' "
        "convert_llava_weights_to_hf.py, as docs/coming-from.md says"
    )
