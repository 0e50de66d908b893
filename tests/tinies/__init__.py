"""Tiny random models of every family, and prompts for them made of raw tensors."""

from .aya_vision import AyaVision, Cohere2Vision
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
)
from .exaone4_5 import Exaone45
from .gemma3 import Gemma3
from .gemma4 import Gemma4, Gemma4Small
from .idefics3 import Idefics3
from .internvl import InternVL
from .llava import Llava, LlavaPixtral
from .llava_next import LlavaNext
from .llava_next_video import LlavaNextVideo
from .llava_onevision import LlavaOnevision
from .mistral3 import Mistral3
from .paligemma import PaliGemma, PaliGemma2
from .qwen2_5_vl import Qwen25VL
from .qwen2_vl import Qwen2VL
from .qwen3_vl import Qwen3VL
from .qwen3_vl_moe import Qwen3VLMoe
from .smolvlm import SmolVLM
from .video_llava import VideoLlava

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
    AyaVision(),
    Cohere2Vision(),
    Exaone45(),
    Gemma3(),
    Gemma4(),
    Gemma4Small(),
    PaliGemma(),
    LlavaPixtral(),
    PaliGemma2(),
)

__all__ = [
    "END",
    "IMAGE",
    "LAYERS",
    "PAD",
    "RAGGED",
    "RAGGED_VIDEO",
    "START",
    "TINIES",
    "VIDEO",
    "Gemma4",
    "Piece",
    "Tiny",
    "by_row",
    "make_inputs",
    "make_pieces",
]
