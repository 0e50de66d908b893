"""LLaVA-OneVision in vLLM: tiles that are resampled where there are many, and videos pooled two by two."""

from types import SimpleNamespace
from typing import Any

from vllm.model_executor.models.llava_onevision import (
    LlavaOnevisionDummyInputsBuilder,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionMultiModalProcessor,
    LlavaOnevisionProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from seeless.integrations.vllm.layouts import PackedLayouts
from seeless.integrations.vllm.models.llava import OnLlavaTower
from seeless.integrations.vllm.processing import reducing_info, reducing_processor


def layouts_of(config: Any) -> PackedLayouts:
    """Layouts by vLLM's own way of packing tiles."""

    def pack(config: Any, newline: Any, size: Any, features: Any, most: int | None) -> Any:
        own: Any = SimpleNamespace(config=config, image_newline=newline)
        stock = LlavaOnevisionForConditionalGeneration._merge_image_patch_embeddings
        ratio = {} if most is None else {"vision_aspect_ratio": f"anyres_max_{most}"}
        return stock(own, size, features, image_newline=newline, strategy="spatial_unpad", **ratio)

    return PackedLayouts(config, pack, resampled=True)


@MULTIMODAL_REGISTRY.register_processor(
    reducing_processor(LlavaOnevisionMultiModalProcessor, layouts_of),
    info=reducing_info(LlavaOnevisionProcessingInfo),
    dummy_inputs=LlavaOnevisionDummyInputsBuilder,
)
class SeelessOnevisionForConditionalGeneration(OnLlavaTower, LlavaOnevisionForConditionalGeneration):
    """LLaVA-OneVision of which only the kept tokens enter the decoder."""

    layouts_of = staticmethod(layouts_of)
