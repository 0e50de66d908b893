"""Random weights far enough apart that attention is not flat, so that an error shows."""

import torch
from torch import nn


@torch.no_grad()
def spread(model: nn.Module, seed: int = 0) -> None:
    """Draw the weights of a model: matrices to keep the size of what they are given, biases and norms small noise."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        if "embed" in name or "newline" in name:
            weight.copy_(noise * 0.5)
        elif weight.ndim > 1:
            inner = weight.shape[-1] if weight.ndim == 3 else weight[0].numel()
            weight.copy_(noise * 1.3 / inner**0.5)
        else:
            weight.add_(noise * 0.1)
