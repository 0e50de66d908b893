"""The plug-in for lmms-eval: its models `seeless`, and `llava_vtr` and the like for commands written for PriorTR.

Found by lmms-eval itself (entry point `lmms_eval.models`); importing it imports neither lmms-eval nor torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

CLASSES = {
    "seeless": "model.SeelessLM",
    "llava_vtr": "vtr.LlavaVTR",
    "internvl_vtr": "vtr.InternVLVTR",
    "qwen2_vl_vtr": "vtr.Qwen2VLVTR",
    "qwen3_vl_vtr": "vtr.Qwen3VLVTR",
    "video_llava_vtr": "vtr.VideoLlavaVTR",
}


def manifests() -> "list[ModelManifest]":
    """Names and classes of all models, as lmms-eval's registry takes them: each with a simple and a chat interface."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [
        ModelManifest(model_id=name, simple_class_path=f"{__name__}.{path}", chat_class_path=f"{__name__}.{path}Chat")
        for name, path in CLASSES.items()
    ]
