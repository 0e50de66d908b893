"""Qwen3-VL in vLLM: features of three tower layers beside the tokens, and a timestamp before every frame of a video."""

from collections.abc import Mapping
from typing import Any

import torch
from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import PromptUpdateDetails

from seeless.integrations.vllm.layouts import GridLayouts
from seeless.integrations.vllm.models.qwen2_5_vl import OnQwenTower, alone
from seeless.integrations.vllm.mrope import as_digits
from seeless.integrations.vllm.processing import reducing_info, reducing_processor
from seeless.integrations.vllm.reducing import Kept


def frame_by_frame(config: Any, tokenizer: Any, data: Mapping[str, Any]) -> list[int]:
    """The ids that stand for a whole video: before every frame its timestamp and a mark, behind it another mark."""
    count, height, width = (int(number) for number in torch.as_tensor(data["video_grid_thw"]).reshape(-1))
    tokens = height * width // config.vision_config.spatial_merge_size**2
    whole = Qwen3VLMultiModalProcessor.get_video_repl(
        tokens_per_frame=[tokens] * count,
        timestamps=torch.as_tensor(data["timestamps"]).reshape(-1).tolist(),
        tokenizer=tokenizer,
        vision_start_token_id=config.vision_start_token_id,
        vision_end_token_id=config.vision_end_token_id,
        video_token_id=config.video_token_id,
    )
    return whole.full


class Processor(reducing_processor(Qwen3VLMultiModalProcessor, GridLayouts)):  # type: ignore[misc]
    """The marks and timestamps between frames travel with the kept tokens: which frame has how many, only the picture
    tells, so in the prompt all of them are placeholders."""

    def whole(self, stock: Any, number: int, data: Mapping[str, Any]) -> PromptUpdateDetails:
        if stock.modality == "image":
            return super().whole(stock, number, data)
        config = self.info.get_hf_config()
        ids = frame_by_frame(config, self.info.get_tokenizer(), data)
        return PromptUpdateDetails.select_token_id(ids, config.video_token_id)

    def cut(self, whole: Any, ids: torch.Tensor, shown: torch.Tensor, kept: int) -> PromptUpdateDetails:
        places = shown.nonzero()[:, 0]
        first, last = int(places[0]), int(places[-1]) + 1
        between = last - first - len(places)
        placeholder = int(ids[first])
        full = [*ids[:first].tolist(), *[placeholder] * (kept + between), *ids[last:].tolist()]
        return PromptUpdateDetails.select_token_id(full, placeholder)


class WithTimestamps(OnQwenTower):
    """Text between the frames of a video, which travels with its tokens."""

    config: Any
    language_model: Any
    _tokenizer: Any

    def _run_ids(self, modality: str, data: Mapping[str, Any]) -> tuple[list[int], int, int]:
        """The ids that stand for a whole picture, and where its tokens begin and end among them."""
        if modality == "image":
            tokens = len(self.layouts.of(modality, data))
            return [0, *[self.config.image_token_id] * tokens], 1, tokens + 1
        ids = frame_by_frame(self.config, self._tokenizer, data)
        token = self.config.video_token_id
        return ids, ids.index(token), len(ids) - ids[::-1].index(token)

    def offsets(self, modality: str, data: Any) -> torch.Tensor:
        ids, first, last = self._run_ids(modality, data)
        offset = first if modality == "image" else 0
        positions, _ = Qwen3VLForConditionalGeneration.get_mrope_input_positions(
            self, ids, [alone(modality, data, offset)]
        )
        return positions[:, first:last].T - first

    def told(self, modality: str, kept: Kept, item: Any) -> torch.Tensor:
        if modality == "image":
            return super().told(modality, kept, item)
        ids, first, last = self._run_ids(modality, item)
        run = torch.tensor(ids[first:last], device=kept.places.device)
        shown = run == self.config.video_token_id
        stays, row = ~shown, shown.nonzero()[:, 0][kept.places]
        stays[row] = True
        tokens = kept.tokens.new_zeros(len(run), kept.tokens.shape[1])
        tokens[:, : self.width] = self.language_model.embed_input_ids(run * ~shown).to(tokens)
        tokens[row] = kept.tokens
        offsets = self.offsets(modality, item).to(run.device)
        return torch.cat([tokens, as_digits(offsets).to(tokens)], 1)[stays]


@MULTIMODAL_REGISTRY.register_processor(
    Processor, info=reducing_info(Qwen3VLProcessingInfo), dummy_inputs=Qwen3VLDummyInputsBuilder
)
class SeelessQwen3VLForConditionalGeneration(WithTimestamps, Qwen3VLForConditionalGeneration):
    """Qwen3-VL of which only the kept tokens enter the decoder, and later layers add only their features."""

    layouts_of = GridLayouts
