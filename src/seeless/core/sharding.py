"""Weights that lie in pieces on several processes."""

import torch
from torch import nn

from seeless.errors import UnsupportedModel


def check_whole(module: nn.Module) -> None:
    """Refuse to call a module whose weights are sharded while nothing would gather them for the call.

    FSDP gathers the weights of a layer for its own forward and gives them up behind it. Tensor parallelism, and FSDP
    around the module itself, bring hooks of the module's own.

    Raises:
        UnsupportedModel: they are.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()) or module._forward_pre_hooks:
        return
    from torch.distributed.tensor import DTensor

    if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
        raise UnsupportedModel(
            "this strategy reads the weights of a layer that is not running, and FSDP keeps only pieces of those here; "
            "have it keep them whole behind the forward (reshard_after_forward=False), or take a strategy that reads "
            "hidden states or the coming layer only"
        )
