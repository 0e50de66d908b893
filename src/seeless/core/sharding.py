"""Weights that lie in pieces on several processes."""

import torch
from torch import nn

from seeless.errors import UnsupportedModel


def check_whole(layer: nn.Module) -> None:
    """Refuse to call a layer whose weights are sharded while nothing would gather them for the call.

    FSDP gathers the weights of a layer for its own forward and gives them up behind it. Tensor parallelism, and FSDP
    around a part of the layer, bring hooks of that part's own.

    Raises:
        UnsupportedModel: they are.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    from torch.distributed.tensor import DTensor

    own = (
        p for part in layer.modules() if part is layer or not part._forward_pre_hooks for p in part.parameters(False)
    )
    if any(isinstance(parameter, DTensor) for parameter in own):
        raise UnsupportedModel(
            "this strategy reads what a layer is about to compute, and FSDP has only pieces of its weights here; "
            "have it keep them whole behind the forward (reshard_after_forward=False), or take a strategy that reads "
            "hidden states or the layer before the stage"
        )


def leave(layer: nn.Module, last: nn.Module) -> None:
    """Tell accelerate that a run of a layer ended inside one of its parts, so that weights go back where they lay."""
    for part in layer.modules():
        hook = getattr(part, "_hf_hook", None)
        if hook is not None and any(other is last for other in part.modules()):
            hook.post_forward(part, None)
