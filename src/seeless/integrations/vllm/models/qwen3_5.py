"""Qwen3.5 in vLLM: Qwen3-VL's tower and timestamps, and a decoder with layers of linear attention."""

from vllm.model_executor.models.qwen3_5 import Qwen3_5ForConditionalGeneration, Qwen3_5ProcessingInfo
from vllm.model_executor.models.qwen3_vl import Qwen3VLDummyInputsBuilder
from vllm.multimodal import MULTIMODAL_REGISTRY

from seeless.integrations.vllm.layouts import GridLayouts
from seeless.integrations.vllm.models.qwen3_vl import Processor, WithTimestamps
from seeless.integrations.vllm.processing import reducing_info


@MULTIMODAL_REGISTRY.register_processor(
    Processor, info=reducing_info(Qwen3_5ProcessingInfo), dummy_inputs=Qwen3VLDummyInputsBuilder
)
class SeelessQwen35ForConditionalGeneration(WithTimestamps, Qwen3_5ForConditionalGeneration):
    """Qwen3.5 of which only the kept tokens enter the decoder, at their own positions."""

    layouts_of = GridLayouts
