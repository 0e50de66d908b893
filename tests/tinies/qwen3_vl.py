"""Qwen3-VL: deepstack features join the first three decoder layers.

Every frame of a video is its own run of placeholders behind a timestamp.
"""

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from .base import END, START, VIDEO, text_options, words
from .qwen2_vl import MARKERS, MERGE, PATCH, ROPE, TEMPORAL, Qwen2VL


def qwen3_text(**options) -> dict:
    options = text_options(rope_parameters={**ROPE, "mrope_interleaved": True}, **options)
    del options["tie_word_embeddings"]
    return options


def qwen3_tower() -> dict:
    return {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "num_heads": 4,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1, 2],
    }


class Qwen3VL(Qwen2VL):
    name = "qwen3_vl"
    model_class = Qwen3VLForConditionalGeneration

    def config(self):
        return Qwen3VLConfig(
            text_config=qwen3_text(), vision_config=qwen3_tower(), tie_word_embeddings=False, **MARKERS
        )

    def video_ids(self, seed: int, frames: int, tokens: int) -> list[int]:
        ids = []
        for frame in range(frames):
            ids += [*words(3, 10 * seed + frame), START, *[VIDEO] * tokens, END]
        return ids
