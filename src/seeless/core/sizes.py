"""The sizes of a model that decide what a forward costs, from its configs and the shapes of its modules."""

from typing import Any

from torch import nn

from seeless.core.family import ModelView
from seeless.core.host import layer_config
from seeless.flops import Dimensions


def dimensions(view: ModelView) -> Dimensions:
    """Sizes of a model."""
    text, tower = view.language_model.config, view.config.vision_config
    modal = view.family.modal_experts is not None
    layers = view.tower_layers("image")
    patch = _area(tower.patch_size) * getattr(tower, "temporal_patch_size", 1) if layers else 0
    attention = [_attention(view, layer) for layer in range(view.depth)]
    by_patch = sum(map(_weights, _looking(view)))
    windowed = sum(not view.tower_attends("image", index) for index in range(len(layers)))  # see nothing: window 0
    if view.family.windows:
        windowed = len(layers) - len(tower.fullatt_block_indexes)
    return Dimensions(
        hidden=text.hidden_size,
        attention=tuple(_mixing(view, index) for index in range(view.depth)),
        feed_forward=tuple(_feeding(view, index) for index in range(view.depth)),
        heads=text.num_attention_heads,
        kv_heads=attention[0][0],
        head_dim=attention[0][1],
        vocabulary=text.vocab_size,
        tower_layers=len(layers),
        tower_hidden=getattr(tower, "embed_dim", None) or tower.hidden_size if layers else 0,
        tower_weights=sum(map(_weights, layers)) // len(layers) if layers else 0,
        patch_inputs=getattr(tower, "num_channels", 3) * patch,
        projector_weights=sum(map(_weights, [*view.projectors, *view.tower_readers])) - by_patch,
        patch_weights=by_patch,
        windowed_layers=windowed,
        window=_window(tower) if view.family.windows else 0,
        unlike=tuple(attention) if len(set(attention)) > 1 else (),
        recurrent=tuple(view.recurrent),
        visual=tuple(_feeding(view, index, of=1) for index in range(view.depth)) if modal else (),
    )


def _attention_parts(view: ModelView, index: int) -> list[nn.Module]:
    """What a decoder layer mixes tokens with."""
    layer = view.layers[index]
    if view.attends(index):
        return [part for name, part in layer.named_children() if "attn" in name or "attention" in name]
    return [part for name, part in layer.named_children() if name != view.family.feed_forward]


def _mixing(view: ModelView, index: int) -> int:
    """Weights of that."""
    return sum(_met(part, 0, None) for part in _attention_parts(view, index))


def _attention(view: ModelView, layer: int) -> tuple[int, int]:
    """Key heads of a decoder layer's own, and their size."""
    text = view.language_model.config
    own = layer_config(text, layer)
    heads = getattr(own, "num_key_value_heads", None) or own.num_attention_heads
    heads = heads if layer < view.depth - view.borrowing else 0
    if getattr(text, "kv_lora_rank", None):  # compressed keys and values, cached as they are expanded
        return heads, (text.qk_nope_head_dim + text.qk_rope_head_dim + text.v_head_dim) // 2
    return heads, getattr(own, "head_dim", None) or text.hidden_size // text.num_attention_heads


def _looking(view: ModelView) -> list[nn.Module]:
    """What projectors make keys and values of patches with, where queries of theirs look at these."""
    parts = [(name, part) for projector in view.projectors for name, part in projector.named_modules()]
    return [part for name, part in parts if "crossattention" in name and name.endswith((".key", ".value"))]


def _area(size: int | list[int] | tuple[int, ...]) -> int:
    return size * size if isinstance(size, int) else size[0] * size[1]


def _window(tower: Any) -> int:
    """Patches per side of an attention window, which holds whole tokens."""
    merge = tower.spatial_merge_size
    return tower.window_size // merge // tower.patch_size * merge


def _feeding(view: ModelView, index: int, of: int = 0) -> int:
    """Weights of all else in a decoder layer that a token meets.

    Args:
        of: of text (0) or visual tokens (1), where these have experts of their own.
    """
    experts, visited = view.family.modal_experts, _visited(view.language_model.config)
    mixing = _attention_parts(view, index)
    parts = [part for part in view.layers[index].children() if part not in mixing]
    return sum(_met(part, visited, None if experts is None else experts[1 - of]) for part in parts)


def _visited(text: Any) -> int:
    """Experts that a token visits; 0 without any."""
    names = ("num_experts_per_tok", "experts_per_token", "top_k_experts")
    return next((getattr(text, name) for name in names if getattr(text, name, None)), 0)


def _met(module: nn.Module, visited: int, others: str | None) -> int:
    """Weights of a module's matrices and convolutions that a token meets.

    Args:
        visited: of its experts.
        others: name of modules with the experts of other tokens.
    """
    if isinstance(module, nn.Conv1d):
        return module.weight.numel()
    if isinstance(module, nn.ModuleList):  # one module each
        return visited * _weights(module) // max(1, len(module))
    stacked = [x for x in module.parameters(recurse=False) if x.ndim == 3]  # all experts' weights as one
    own = sum(visited * weight.numel() // len(weight) for weight in stacked)
    if stacked:
        return own
    if isinstance(getattr(module, "in_features", None), int):
        return _weights(module)
    own += sum(x.numel() for name, x in module.named_parameters(recurse=False) if x.ndim == 2 and "bias" not in name)
    return own + sum(_met(child, visited, others) for name, child in module.named_children() if name != others)


def _weights(module: nn.Module) -> int:
    """Numbers in all matrices a token is multiplied with, quantised ones included: of those only the module knows."""
    inner, outer = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(inner, int) and isinstance(outer, int):
        return inner * outer
    own = sum(parameter.numel() for parameter in module.parameters(recurse=False) if parameter.ndim == 2)
    return own + sum(_weights(child) for child in module.children())
