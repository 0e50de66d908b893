"""The thinkers of Qwen2.5-Omni and Qwen3-Omni: Qwen2.5-VL and Qwen3-VL beside a tower for sound, which is not asked."""

import torch
from transformers import (
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2_5OmniThinkerModel,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
)

from .qwen2_5_vl import Qwen25VL
from .qwen2_vl import MARKERS, Qwen2VL, qwen_text
from .qwen3_vl import Qwen3VL, qwen3_text, qwen3_tower

assert Qwen2_5OmniThinkerModel  # older releases have no base model inside the thinker
SOUND = {
    "d_model": 32,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "output_dim": 64,
    "num_mel_bins": 16,
}
TOKENS = {**MARKERS, "audio_token_id": 94, "audio_start_token_id": 93, "audio_end_token_id": 92}


class Qwen25Omni(Qwen25VL):
    name = "qwen2_5_omni_thinker"
    model_class = Qwen2_5OmniThinkerForConditionalGeneration
    new_token_types = {}
    never = (92, 93, 94)
    sparse = True

    def config(self):
        return Qwen2_5OmniThinkerConfig(
            text_config=qwen_text(),
            vision_config=super().config().vision_config.to_dict(),
            audio_config=SOUND,
            initializer_range=0.15,
            tie_word_embeddings=False,
            **TOKENS,
        )

    def video(self, seed: int):
        piece = super().video(seed)
        piece.data["video_second_per_grid"] = piece.data.pop("second_per_grid_ts")
        return piece

    def collate(self, pieces, ids, mask) -> dict:
        given = super().collate(pieces, ids, mask)
        del given["mm_token_type_ids"]
        return given


class Qwen3Omni(Qwen3VL):
    name = "qwen3_omni_moe_thinker"
    model_class = Qwen3OmniMoeThinkerForConditionalGeneration
    new_token_types = {}
    never = (92, 93, 94)
    sparse = True

    def config(self):
        return Qwen3OmniMoeThinkerConfig(
            text_config=qwen3_text(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48),
            vision_config=qwen3_tower(),
            audio_config={**SOUND, "downsample_hidden_size": 8},
            position_id_per_seconds=2,
            initializer_range=0.15,
            **TOKENS,
        )

    def video(self, seed: int):
        piece = super().video(seed)
        piece.data["video_second_per_grid"] = torch.tensor([[1.0, 0.5][seed % 2]])
        return piece

    def video_ids(self, seed: int, frames: int, tokens: int) -> list[int]:
        return Qwen2VL.video_ids(self, seed, frames, tokens)  # its frames follow each other without a word between

    def collate(self, pieces, ids, mask) -> dict:
        given = super().collate(pieces, ids, mask)
        del given["mm_token_type_ids"]
        return given
