"""LLaVA-1.5 in vLLM, on CLIP and SigLIP towers."""

from typing import Any

import torch
from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from seeless.integrations.vllm.layouts import Layouts
from seeless.integrations.vllm.processing import reducing_info, reducing_processor
from seeless.integrations.vllm.served import KEY, reads_the_reader, strategy_of
from seeless.integrations.vllm.serving import Serving
from seeless.integrations.vllm.tower import Parts

LAST = (-1,)  # no layer reads what the last one gives


class OnLlavaTower(Serving):
    """Where the parts of a CLIP or SigLIP tower are, of which vLLM builds the layers up to that whose output is used.

    A strategy that reads the layer behind it gets that one, too.
    """

    vision_tower: Any
    multi_modal_projector: Any

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        config: Any = vllm_config.model_config.hf_config
        self.taken = taken = config.vision_feature_layer
        self.reading = reads_the_reader(strategy_of(getattr(config, KEY), mrope=False)) and taken not in LAST
        config.vision_feature_layer = taken + 1 if self.reading else taken
        try:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
        finally:
            config.vision_feature_layer = taken

    def parts(self) -> Parts:
        layers: Any = self.vision_tower.vision_model.encoder.layers
        own = [layer.self_attn for layer in layers]
        made = len(layers) - 1 - int(self.reading)
        return Parts(layers, [each.attn for each in own], made, self.multi_modal_projector, own[made].tp_size == 1)

    def _image_pixels_to_features(self, vision_tower: Any, pixel_values: torch.Tensor) -> torch.Tensor:
        if not self.reading:
            return super()._image_pixels_to_features(vision_tower, pixel_values)  # type: ignore[misc]
        select = self.config.vision_feature_select_strategy  # type: ignore[attr-defined]
        return vision_tower(pixel_values, select_layers=[self.taken], feature_select_strategy=select)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return self.multi_modal_projector(features)


@MULTIMODAL_REGISTRY.register_processor(
    reducing_processor(LlavaMultiModalProcessor, Layouts),
    info=reducing_info(LlavaProcessingInfo),
    dummy_inputs=LlavaDummyInputsBuilder,
)
class SeelessLlavaForConditionalGeneration(OnLlavaTower, LlavaForConditionalGeneration):
    """LLaVA-1.5 of which only the kept tokens enter the decoder."""

    layouts_of = Layouts
