"""Tiny random models of every family, and prompts for them made of raw tensors."""

import transformers

from .base import (
    END,
    IMAGE,
    LAYERS,
    PAD,
    RAGGED,
    RAGGED_VIDEO,
    START,
    VIDEO,
    Piece,
    Tiny,
    by_row,
    make_inputs,
    make_pieces,
    repeats_patches,
)
from .gemma3 import Gemma3
from .idefics3 import Idefics3
from .internvl import InternVL
from .lfm2_vl import Lfm2VL
from .lfm3_vl import Lfm3VL
from .llava import Llava, LlavaPixtral
from .llava_next import LlavaNext
from .llava_next_video import LlavaNextVideo
from .llava_onevision import LlavaOnevision
from .minicpmv4_6 import MiniCPMV46
from .minicpmv4_7 import MiniCPMV47
from .mistral3 import Mistral3
from .paligemma import PaliGemma, PaliGemma2
from .qwen2_5_vl import Qwen25VL
from .qwen2_vl import Qwen2VL
from .qwen3_5 import Qwen35
from .qwen3_5_moe import Qwen35Moe
from .qwen3_vl import Qwen3VL
from .qwen3_vl_moe import Qwen3VLMoe
from .smolvlm import SmolVLM
from .video_llava import VideoLlava

# What only newer releases of transformers have. In 5.18 the tower of MiniCPM-V 4.6 takes all pictures of a batch for
# equally large (5.23 is right), and there is no LFM3-VL.
NEWER: tuple[Tiny, ...] = (Lfm3VL(), MiniCPMV46()) if hasattr(transformers, "Lfm3VlConfig") else ()

TINIES: tuple[Tiny, ...] = (
    Llava("llama", 4),
    Llava("mistral", 2),
    Llava("qwen2", 2),
    LlavaNext("llama", 4),
    LlavaNext("mistral", 2),
    Qwen2VL(),
    Qwen25VL(),
    Qwen3VL(),
    Qwen3VLMoe(),
    InternVL(),
    VideoLlava(),
    LlavaOnevision(),
    LlavaNextVideo(),
    SmolVLM(),
    Idefics3(),
    Mistral3(),
    Gemma3(),
    PaliGemma(),
    LlavaPixtral(),
    PaliGemma2(),
    Qwen35(),
    Qwen35Moe(),
    Lfm2VL(),
    MiniCPMV47(),
    *NEWER,
)

__all__ = [
    "END",
    "IMAGE",
    "LAYERS",
    "NEWER",
    "PAD",
    "RAGGED",
    "RAGGED_VIDEO",
    "START",
    "TINIES",
    "VIDEO",
    "Piece",
    "Tiny",
    "by_row",
    "make_inputs",
    "make_pieces",
    "repeats_patches",
]
