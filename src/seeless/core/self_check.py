"""Whether the model did with its cache what the plan says: told from shapes alone, so it costs nothing.

That the attention that is read is the attention the model computes is compared where it is read (`core/attention.py`).
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from seeless.core.family import ModelView
from seeless.core.host import cache_in, version
from seeless.errors import UnsupportedModel


def check_cache_is_known(view: ModelView, named: Mapping[str, Any]) -> None:
    """Refuse a KV cache that comes under a name seeless does not know: it would go unnoticed.

    Args:
        named: arguments or outputs of the language model.
    """
    if cache_in(named) is None and (odd := [name for name, value in named.items() if isinstance(value, Cache)]):
        raise _differs(view, f"has its KV cache under the name {odd[0]!r}")


def check_columns(view: ModelView, cache: Cache | None, wanted: list[int]) -> None:
    """Compare the columns every layer's cache holds with the plan's.

    Args:
        wanted: per layer.
    """
    if cache is None:
        return
    for index, own in enumerate(wanted):
        layer: Any = cache.layers[index] if index < len(cache.layers) else None
        if layer is not None and type(layer) is not DynamicLayer:
            continue  # holds its columns in a form of its own
        held = None if layer is None or layer.keys is None else layer.keys.shape[-2]
        if held != own:
            raise _differs(view, f"holds {held} tokens in the cache of layer {index} where {own} belong")


def _differs(view: ModelView, what: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{type(view.language_model).__name__} of transformers {version()} (torch {torch.__version__}) {what}, which "
        "seeless does not expect, so answers under a handle would be wrong; install a release of transformers that is "
        "tested, and please report this sentence with your model's config.json"
    )
