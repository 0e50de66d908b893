"""The sizes of a model that decide what a forward costs, from its configs and the shapes of its modules."""

from typing import Any

from torch import nn

from seeless.core.family import ModelView
from seeless.core.host import layer_config
from seeless.errors import UnsupportedModel
from seeless.flops import Dimensions


def dimensions(view: ModelView) -> Dimensions:
    """Sizes of a model."""
    text, tower = view.language_model.config, view.config.vision_config
    layers = view.tower_layers("image")
    patch = _area(tower.patch_size) * getattr(tower, "temporal_patch_size", 1) if layers else 0
    layer = view.layers[view.counting]
    mlp = getattr(layer, view.family.feed_forward, None)
    gated = _gated(layer, mlp)
    attention = [_attention(view, layer) for layer in range(view.depth)]
    windowed = sum(not view.tower_attends("image", index) for index in range(len(layers)))  # see nothing: window 0
    if view.family.windows:
        windowed = len(layers) - len(tower.fullatt_block_indexes)
    return Dimensions(
        hidden=text.hidden_size,
        intermediate=_intermediate(text, mlp, gated),
        heads=text.num_attention_heads,
        kv_heads=attention[0][0],
        head_dim=attention[0][1],
        vocabulary=text.vocab_size,
        gated=gated,
        tower_layers=len(layers),
        tower_hidden=getattr(tower, "embed_dim", None) or tower.hidden_size if layers else 0,
        tower_weights=sum(map(_weights, layers)) // len(layers) if layers else 0,
        patch_inputs=getattr(tower, "num_channels", 3) * patch,
        projector_weights=_weights(view.projector) + sum(map(_weights, view.tower_readers)),
        windowed_layers=windowed,
        window=_window(tower) if view.family.windows else 0,
        experts=_experts(text),
        unlike=tuple(attention) if len(set(attention)) > 1 else (),
        gate=_gate(view, *attention[view.counting]),
        mixers=_mixers(view),
    )


def _gate(view: ModelView, kv_heads: int, head_dim: int) -> int:
    """Weights of a decoder layer's attention beside those of queries, keys, values and output; compressed ones count as
    if they were whole."""
    text = view.language_model.config
    if getattr(text, "kv_lora_rank", None):
        return 0
    parts = [part for name, part in view.layers[view.counting].named_children() if "attn" in name]
    plain = 2 * text.hidden_size * head_dim * (text.num_attention_heads + kv_heads)
    return sum(map(_weights, parts)) - plain


def _mixers(view: ModelView) -> tuple[int | None, ...]:
    """Of every decoder layer, the weights of what it has in place of attention; empty if all have attention."""
    if not view.recurrent:
        return ()
    return tuple(None if view.attends(index) else _mixing(view, index) for index in range(view.depth))


def _mixing(view: ModelView, index: int) -> int:
    """Weights of all of a recurrent decoder layer but its feed-forward network."""
    layer = view.layers[index]
    return _weights(layer) - _weights(getattr(layer, view.family.feed_forward))


def _attention(view: ModelView, layer: int) -> tuple[int, int]:
    """Key heads of a decoder layer's own, and their size."""
    text = view.language_model.config
    own = layer_config(text, layer)
    heads = getattr(own, "num_key_value_heads", None) or own.num_attention_heads
    heads = heads if layer < view.depth - view.borrowing else 0
    return heads, getattr(own, "head_dim", None) or text.hidden_size // text.num_attention_heads


def _area(size: int | list[int] | tuple[int, ...]) -> int:
    return size * size if isinstance(size, int) else size[0] * size[1]


def _window(tower: Any) -> int:
    """Patches per side of an attention window, which holds whole tokens."""
    merge = tower.spatial_merge_size
    return tower.window_size // merge // tower.patch_size * merge


def _experts(text: Any) -> int:
    """Among how many experts a router chooses; 0 without one."""
    if not getattr(text, "num_experts_per_tok", None):
        return 0
    names = ("num_experts", "n_routed_experts", "num_local_experts")
    return next((getattr(text, name) for name in names if getattr(text, name, None)), 0)


def _intermediate(text: Any, mlp: nn.Module | None, gated: bool) -> int:
    """Width of the feed-forward network; of all the experts a token visits."""
    expert = getattr(text, "moe_intermediate_size", None)
    if expert is not None and getattr(text, "enable_moe_block", False):  # beside a network of every token's
        return text.intermediate_size + expert * text.top_k_experts
    visited = getattr(text, "num_experts_per_tok", None)
    if visited and expert is not None:
        return expert * visited + (getattr(text, "shared_expert_intermediate_size", None) or 0)
    if mlp is not None and not hasattr(mlp, "experts"):  # a config may name a width that is rounded
        return _weights(mlp) // ((3 if gated else 2) * text.hidden_size)
    if (width := getattr(text, "intermediate_size", None)) is None:
        raise UnsupportedModel(
            f"{type(text).__name__} has no intermediate_size, so what a forward of this decoder costs is not known"
        )
    return width


def _gated(layer: nn.Module, mlp: nn.Module | None) -> bool:
    """Whether the feed-forward network of a decoder layer has a gate: a matrix of its own, a third one, or half of
    one."""
    if mlp is not None and sum(_weights(child) > 0 for child in mlp.children()) == 3:
        return True
    parts = [part for name, part in layer.named_children() if "attn" not in name and "attention" not in name]
    names = [name for part in parts for name, _ in [*part.named_modules(), *part.named_parameters()]]
    return any(("gate" in name and "proj" in name) or "experts" in name for name in names)


def _weights(module: nn.Module) -> int:
    """Numbers in all matrices a token is multiplied with, quantised ones included: of those only the module knows."""
    inner, outer = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(inner, int) and isinstance(outer, int):
        return inner * outer
    own = sum(parameter.numel() for parameter in module.parameters(recurse=False) if parameter.ndim == 2)
    return own + sum(_weights(child) for child in module.children())
