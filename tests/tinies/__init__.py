"""Tiny random models of every family, and prompts for them made of raw tensors."""

import importlib
from collections.abc import Iterator

import transformers

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
    repeats_patches,
)
from .exaone4_5 import Exaone45
from .gemma3 import Gemma3
from .gemma4 import Gemma4, Gemma4Small
from .granite4_vision import Granite4Vision
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

# Families that not every supported release of transformers has.
NEWER = {
    "glm_v": ("Glm4V", "Glm4VMoe", "Glm46V", "Glmga", "GlmOcr"),
    "paddleocr_vl": ("PaddleOCRVL",),
    "ernie4_5_vl": ("Ernie45VL",),
    "molmo2": ("Molmo2",),
    "omni": ("Qwen25Omni", "Qwen3Omni"),
    "ovis2": ("Ovis2",),
    "vipllava": ("VipLlava",),
    "deepseek_vl": ("DeepseekVL", "DeepseekVLHybrid", "Janus"),
    "lighton_ocr": ("LightOnOcr",),
    "cosmos3": ("Cosmos3Omni", "Cosmos3Edge"),
    "kimi_k25": ("KimiK25",),
    "video_llama_3": ("VideoLlama3",),
    "unread": ("GotOcr2", "PPChart2Table", "FastVlm", "PerceptionLM"),
}


def of_newer_releases() -> Iterator[Tiny]:
    """Those of them that the installed release has."""
    for module, names in NEWER.items():
        try:
            found = importlib.import_module(f".{module}", __name__)
        except ImportError as error:
            if error.name != "transformers":
                raise
            continue
        yield from (getattr(found, name)() for name in names)
    if hasattr(transformers, "Lfm3VlConfig"):
        # Before it, the tower of MiniCPM-V 4.6 took all pictures of a batch for equally large.
        yield from (Lfm3VL(), MiniCPMV46())


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
    Qwen35(),
    Qwen35Moe(),
    Lfm2VL(),
    MiniCPMV47(),
    Granite4Vision(),
    *of_newer_releases(),
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
    "Gemma4",
    "Piece",
    "Tiny",
    "by_row",
    "make_inputs",
    "make_pieces",
    "repeats_patches",
]
