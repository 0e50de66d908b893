"""InternVL in its transformers form in vLLM: tiles and a thumbnail, four patches to a token."""

from collections.abc import Mapping
from typing import Any

import torch
from vllm.model_executor.models.interns1 import (
    InternS1DummyInputsBuilder,
    InternS1ForConditionalGeneration,
    InternS1MultiModalProcessor,
    InternS1ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from seeless.integrations.vllm.layouts import TiledLayouts
from seeless.integrations.vllm.processing import reducing_info, reducing_processor
from seeless.integrations.vllm.serving import Serving
from seeless.integrations.vllm.tower import Parts


class Info(reducing_info(InternS1ProcessingInfo)):  # type: ignore[misc]
    """Of images alone: to this model a video is its frames, each an image with text of its own before it."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}


@MULTIMODAL_REGISTRY.register_processor(
    reducing_processor(InternS1MultiModalProcessor, TiledLayouts), info=Info, dummy_inputs=InternS1DummyInputsBuilder
)
class SeelessInternVLForConditionalGeneration(Serving, InternS1ForConditionalGeneration):
    """InternVL (`InternVLForConditionalGeneration`) of which only the kept tokens enter the decoder."""

    layouts_of = TiledLayouts

    def parts(self) -> Parts:
        layers: Any = self.vision_tower.encoder.layer
        own = [layer.attention.attn for layer in layers]
        return Parts(layers, own, len(layers) - 1, self.multi_modal_projector, whole=True)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return self.multi_modal_projector(features)

    def flat(self, modality: str, given: Mapping[str, Any]) -> Mapping[str, list[int]]:
        return {"pixel_values": torch.as_tensor(given["image_num_patches"]).reshape(-1).tolist()}
