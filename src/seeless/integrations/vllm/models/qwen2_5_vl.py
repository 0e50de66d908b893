"""Qwen2.5-VL in vLLM: pictures of any size, attention windows in the tower, positions of three axes."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from seeless.integrations.vllm.layouts import GridLayouts
from seeless.integrations.vllm.mrope import ServingMRope
from seeless.integrations.vllm.processing import reducing_info, reducing_processor
from seeless.integrations.vllm.tower import Parts

PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


class OnQwenTower(ServingMRope):
    """Where the parts of a Qwen tower are, and which pixels belong to which picture."""

    def parts(self) -> Parts:
        tower: Any = self.visual  # type: ignore[attr-defined]
        own = [block.attn for block in tower.blocks]
        return Parts(tower.blocks, [each.attn for each in own], len(own) - 1, tower.merger, own[-1].tp_size == 1)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return features  # what strategies see of a picture has been through the merger already

    def flat(self, modality: str, given: Mapping[str, Any]) -> Mapping[str, list[int]]:
        return {PIXELS[modality]: self.layouts.grids(modality, given).prod(1).tolist()}  # type: ignore[union-attr]


def alone(modality: str, data: Mapping[str, Any], offset: int) -> Any:
    """One picture as vLLM describes it to a model, as if its prompt had nothing else."""
    own = {
        name: SimpleNamespace(data=torch.as_tensor(value).reshape(-1)) for name, value in data.items() if name in GIVEN
    }
    return SimpleNamespace(modality=modality, mm_position=SimpleNamespace(offset=offset), data=own)


GIVEN = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")


@MULTIMODAL_REGISTRY.register_processor(
    reducing_processor(Qwen2_5_VLMultiModalProcessor, GridLayouts),
    info=reducing_info(Qwen2_5_VLProcessingInfo),
    dummy_inputs=Qwen2_5_VLDummyInputsBuilder,
)
class SeelessQwen25VLForConditionalGeneration(OnQwenTower, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL of which only the kept tokens enter the decoder, at their own positions."""

    layouts_of = GridLayouts

    def offsets(self, modality: str, data: Any) -> torch.Tensor:
        stock = Qwen2_5_VLForConditionalGeneration.get_mrope_input_positions
        tokens = len(self.layouts.of(modality, data))
        positions, _ = stock(self, [0] * (tokens + 1), [alone(modality, data, 1)])
        return positions[:, 1:].T - 1
