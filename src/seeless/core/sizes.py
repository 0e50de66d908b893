"""The sizes of a model that decide what a forward costs, from its configs and the shapes of its modules."""

from typing import Any

from torch import nn

from seeless.core.family import ModelView
from seeless.flops import Dimensions

EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts")  # what configs of decoders call their number


def dimensions(view: ModelView) -> Dimensions:
    """Sizes of a model."""
    text, tower = view.language_model.config, view.config.vision_config
    layers = view.tower_layers("image")
    patch = _area(tower.patch_size) * getattr(tower, "temporal_patch_size", 1)
    windowed = 0
    if view.family.windows:
        windowed = len(layers) - len(tower.fullatt_block_indexes)
    return Dimensions(
        hidden=text.hidden_size,
        intermediate=_intermediate(text),
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocabulary=text.vocab_size,
        gated=_gated(view.layers[0].mlp),
        tower_layers=len(layers),
        tower_hidden=getattr(tower, "embed_dim", None) or tower.hidden_size,
        tower_weights=_weights(layers[0]),
        patch_inputs=getattr(tower, "num_channels", 3) * patch,
        projector_weights=_weights(view.projector) + sum(map(_weights, view.tower_readers)),
        windowed_layers=windowed,
        window=_window(tower) if view.family.windows else 0,
        experts=_experts(text),
    )


def _area(size: int | list[int] | tuple[int, ...]) -> int:
    return size * size if isinstance(size, int) else size[0] * size[1]


def _window(tower: Any) -> int:
    """Patches per side of an attention window, which holds whole tokens."""
    merge = tower.spatial_merge_size
    return tower.window_size // merge // tower.patch_size * merge


def _intermediate(text: Any) -> int:
    """Width of the feed-forward network; of all the experts a token visits."""
    if (expert := getattr(text, "moe_intermediate_size", None)) is not None:
        return expert * text.num_experts_per_tok
    return text.intermediate_size


def _experts(text: Any) -> int:
    """Experts that a router chooses from; 0 without one, or where the config has no number."""
    if getattr(text, "moe_intermediate_size", None) is None:
        return 0
    return next((n for name in EXPERTS if (n := getattr(text, name, None)) is not None), 0)


def _gated(mlp: nn.Module) -> bool:
    """Whether a feed-forward network has a gate, a matrix of its own or half of one."""
    names = [name for name, _ in mlp.named_modules()] + [name for name, _ in mlp.named_parameters()]
    return any("gate" in name and "proj" in name for name in names) or hasattr(mlp, "experts")


def _weights(module: nn.Module) -> int:
    """Numbers in all matrices a token is multiplied with, quantised ones included: of those only the module knows."""
    inner, outer = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(inner, int) and isinstance(outer, int):
        return inner * outer
    own = sum(parameter.numel() for parameter in module.parameters(recurse=False) if parameter.ndim == 2)
    return own + sum(_weights(child) for child in module.children())
