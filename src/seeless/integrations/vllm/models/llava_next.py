"""LLaVA-NeXT in vLLM: tiles, and a newline behind every row of them."""

from types import SimpleNamespace
from typing import Any

from vllm.model_executor.models.llava import LlavaDummyInputsBuilder
from vllm.model_executor.models.llava_next import (
    LlavaNextForConditionalGeneration,
    LlavaNextMultiModalProcessor,
    LlavaNextProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from seeless.integrations.vllm.layouts import PackedLayouts
from seeless.integrations.vllm.models.llava import OnLlavaTower
from seeless.integrations.vllm.processing import reducing_info, reducing_processor


def layouts_of(config: Any) -> PackedLayouts:
    """Layouts by vLLM's own way of packing tiles."""

    def pack(config: Any, newline: Any, size: Any, features: Any, most: Any) -> Any:
        own: Any = SimpleNamespace(config=config, image_newline=newline)
        stock = LlavaNextForConditionalGeneration._merge_image_patch_embeddings
        return stock(own, size, features, strategy="spatial_unpad")

    return PackedLayouts(config, pack)


@MULTIMODAL_REGISTRY.register_processor(
    reducing_processor(LlavaNextMultiModalProcessor, layouts_of),
    info=reducing_info(LlavaNextProcessingInfo),
    dummy_inputs=LlavaDummyInputsBuilder,
)
class SeelessLlavaNextForConditionalGeneration(OnLlavaTower, LlavaNextForConditionalGeneration):
    """LLaVA-NeXT of which only the kept tokens enter the decoder."""

    layouts_of = staticmethod(layouts_of)
