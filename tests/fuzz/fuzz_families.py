"""Tiny models of every family under the fuzz, built once, and what each of them can do by itself."""

from functools import cache

import torch
from matrix import STRATEGIES, gap

import tiny_models  # noqa: F401, has the backend "fused"
from layer_loop import RECURRENT
from tinies import TINIES, Tiny
from tinies.windowed import WINDOWED

FAMILIES: tuple[Tiny, ...] = (*TINIES, *WINDOWED)
BY_NAME = {tiny.name: tiny for tiny in FAMILIES}
# Experts have no float64 kernel.
IN_FLOAT32 = (
    *("qwen3_vl_moe", "qwen3_5_moe", "glm4v_moe", "qwen3_omni_moe_thinker", "kimi_k25", "ernie4_5_vl_moe"),
    *("gemma4-windowed", "llava-gpt_oss-windowed"),
)


@cache
def model_of(name: str, backend: str, dtype: torch.dtype):
    """A model that carries handles."""
    return BY_NAME[name].build(backend, dtype)


@cache
def untouched(name: str, dtype: torch.dtype):
    """A model that never carries one, with eager attention, for the oracle."""
    return BY_NAME[name].build("eager", dtype)


@cache
def mrope(tiny: Tiny) -> bool:
    """Whether positions have several axes."""
    return tiny.mrope


@cache
def recurrent(tiny: Tiny) -> bool:
    """Whether some layers of the decoder are recurrent: their state can neither be cropped nor kept in any cache."""
    kinds = getattr(tiny.config().get_text_config(), "layer_types", None) or []
    return any(kind in RECURRENT for kind in kinds)


@cache
def possible(tiny: Tiny, backend: str, kinds: tuple[str, ...]) -> list[str]:
    """The methods that can work on a family with pictures of some kinds."""
    base = tiny.name.removesuffix("-windowed")
    named = BY_NAME.get(base, tiny)
    return [name for name in STRATEGIES if not any(gap(named, name, backend, kind) for kind in kinds)]


__all__ = ["BY_NAME", "FAMILIES", "IN_FLOAT32", "model_of", "mrope", "possible", "recurrent", "untouched"]
