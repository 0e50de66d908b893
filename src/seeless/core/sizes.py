"""The sizes of a model that decide what a forward costs, from its configs and the shapes of its modules."""

from typing import Any

from torch import nn

from seeless.core.family import ModelView
from seeless.flops import Dimensions


def dimensions(view: ModelView) -> Dimensions:
    """Sizes of a model."""
    text, tower = view.language_model.config, view.config.vision_config
    layers = view.tower_layers("image")
    feed_forward = getattr(view.layers[view.counting], view.family.feed_forward)
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    plain = 2 * text.hidden_size * head_dim * (text.num_attention_heads + text.num_key_value_heads)
    gated = _gated(feed_forward)
    patch = _area(tower.patch_size) * getattr(tower, "temporal_patch_size", 1)
    windowed = sum(not view.tower_attends("image", index) for index in range(len(layers)))  # see nothing: window 0
    if view.family.windows:
        windowed = len(layers) - len(tower.fullatt_block_indexes)
    return Dimensions(
        hidden=text.hidden_size,
        intermediate=_intermediate(text, feed_forward, gated),
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=head_dim,
        vocabulary=text.vocab_size,
        gated=gated,
        tower_layers=len(layers),
        tower_hidden=getattr(tower, "embed_dim", None) or tower.hidden_size,
        tower_weights=sum(map(_weights, layers)) // len(layers),
        patch_inputs=getattr(tower, "num_channels", 3) * patch,
        projector_weights=_weights(view.projector),
        windowed_layers=windowed,
        window=(tower.window_size // tower.patch_size) ** 2 if view.family.windows else 0,
        gate=_mixing(view, view.counting) - plain,
        mixers=tuple(None if view.attends(index) else _mixing(view, index) for index in range(view.depth)),
    )


def _mixing(view: ModelView, index: int) -> int:
    """Weights of all of a decoder layer but its feed-forward network."""
    layer = view.layers[index]
    return _weights(layer) - _weights(getattr(layer, view.family.feed_forward))


def _area(size: int | list[int] | tuple[int, ...]) -> int:
    return size * size if isinstance(size, int) else size[0] * size[1]


def _intermediate(text: Any, mlp: nn.Module, gated: bool) -> int:
    """Width of the feed-forward network; of all the experts a token visits."""
    if (expert := getattr(text, "moe_intermediate_size", None)) is not None:
        return expert * text.num_experts_per_tok + (getattr(text, "shared_expert_intermediate_size", None) or 0)
    if hasattr(mlp, "experts"):
        return text.intermediate_size
    return _weights(mlp) // ((3 if gated else 2) * text.hidden_size)  # a config may name another before it is rounded


def _gated(mlp: nn.Module) -> bool:
    """Whether a feed-forward network has a gate: a matrix of its own, a third one, or half of one."""
    if sum(_weights(child) > 0 for child in mlp.children()) == 3:
        return True
    names = [name for name, _ in mlp.named_modules()] + [name for name, _ in mlp.named_parameters()]
    return any("gate" in name and "proj" in name for name in names) or hasattr(mlp, "experts")


def _weights(module: nn.Module) -> int:
    """Numbers in all matrices a token is multiplied with, quantised ones included: of those only the module knows."""
    inner, outer = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(inner, int) and isinstance(outer, int):
        return inner * outer
    own = sum(parameter.numel() for parameter in module.parameters(recurse=False) if parameter.ndim == 2)
    return own + sum(_weights(child) for child in module.children())
