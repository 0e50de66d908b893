"""What the installed `transformers` calls things: the only place that knows names which change between its releases."""

import importlib.metadata
import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from transformers import cache_utils
from transformers.cache_utils import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, create_causal_mask
from transformers.modeling_utils import AttentionInterface as AttentionInterface

from seeless.errors import UnsupportedModel

TESTED = ("5.18", "5.24")

CACHE_NAMES = ("cache", "past_key_values")  # 5.24 shortened it, of decoders, layers, outputs and mask makers alike
CACHE = next(name for name in CACHE_NAMES if name in inspect.signature(create_causal_mask).parameters)


PREFILL = "_prefill"  # what `generate` runs the prompt with
ENCODING = "_prepare_multimodal_encoder_kwargs_for_generation"  # what it encodes pictures with, ahead of that


# Of caches, the kinds of layers that hold nothing: of decoder layers that take the keys of others.
EMPTY_LAYERS = {own for name in ("DummyLayer",) if (own := getattr(cache_utils, name, None)) is not None}


def cache_in(named: Mapping[str, Any]) -> Cache | None:
    """The KV cache among the arguments or outputs of a decoder or one of its layers."""
    for name, value in named.items():  # an output warns when it is asked for the old name
        if name in CACHE_NAMES and value is not None:
            return value
    return None


def is_stock(hook: Any) -> bool:
    """Whether a forward hook is one with which `transformers` itself notes states and attention where these are asked
    for, or has inputs of checkpointed layers require gradients."""
    own = ("transformers.utils.output_capturing", "transformers.modeling_utils")
    return getattr(hook, "__module__", None) in own


FEATURE_LAYERS = ("vision_feature_layer", "vision_feature_layers")  # the latter where there are several, before 5.24


def feature_layer_in(named: Mapping[str, Any]) -> int | list[int] | None:
    """Which of the tower's hidden states the projector takes, among arguments or attributes of a config."""
    return next((named[name] for name in FEATURE_LAYERS if named.get(name) is not None), None)


def mask_form(kernel: str) -> Literal["seen", "added", "columns"] | None:
    """What an attention kernel takes as mask: `[batch, 1, queries, keys]` bool, "seen", or numbers that are "added" to
    the scores, or which "columns" are real, `[batch, keys]`; None if that is unknown.

    Args:
        kernel: its name, `config._attn_implementation`.
    """
    forms: dict[str, Literal["seen", "added", "columns"]] = {
        "sdpa": "seen",
        "eager": "added",
        "flash_attention_2": "columns",
    }
    if kernel not in ALL_MASK_ATTENTION_FUNCTIONS:
        return None
    own = ALL_MASK_ATTENTION_FUNCTIONS[kernel]
    return next((form for name, form in forms.items() if ALL_MASK_ATTENTION_FUNCTIONS[name] is own), None)


@dataclass(frozen=True)
class AttentionOptions:
    """What an attention kernel is given beside tensors and mask, as far as it changes the attention."""

    scaling: float | None
    softcap: float | None
    sinks: torch.Tensor | None
    dropout: float
    ends: torch.Tensor | None


def attention_options(module: str, given: Mapping[str, Any]) -> AttentionOptions:
    """The options among the arguments that an attention module hands to its kernel.

    Raises:
        UnsupportedModel: it adds a bias to its scores.
    """
    if given.get("position_bias") is not None:
        raise UnsupportedModel(
            f"{module} adds a bias of positions to its scores, so its attention cannot be read; use a strategy that "
            "reads hidden states or nothing"
        )
    return AttentionOptions(
        scaling=given.get("scaling"),
        softcap=given.get("softcap"),
        sinks=next((given[name] for name in ("s_aux", "sinks") if given.get(name) is not None), None),
        dropout=given.get("dropout") or 0.0,
        ends=next((given[name] for name in ("cu_seq_lens_q", "cu_seqlens") if given.get(name) is not None), None),
    )


# Attention modules' projections, where these have one of their own for each.
QUERIES, KEYS, VALUES = "q_proj", "k_proj", "v_proj"


def all_logits(given: dict[str, Any]) -> dict[str, Any]:
    """A decoder's arguments, told to leave out no token on its own: some give up all but the last in late layers."""
    return {**given, "logits_to_keep": 0} if "logits_to_keep" in given else given


def layer_config(config: Any, layer: int) -> Any:
    """The config of a decoder layer, where layers differ in their sizes; else that of the decoder."""
    return config.per_layer_config[layer] if getattr(config, "per_layer_config", None) else config


def version() -> str:
    """Of `transformers`."""
    return importlib.metadata.version("transformers")


@cache
def warn_of_untested() -> None:
    """Warn, once per process, of a release of `transformers` newer than any that was tested: the self-check guards."""

    def release(number: str) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", number)[:2]))

    if release(version()) > release(TESTED[1]):
        warnings.warn(
            f"transformers {version()} is newer than any release seeless was tested with ({TESTED[0]} to {TESTED[1]}); "
            "what it reads and writes is compared with what the model does, and an error says if they differ",
            stacklevel=2,
        )
