"""What the weights of a model are known by."""

import hashlib

from torch import nn

SAMPLED = 64  # numbers of every weight


def fingerprint(model: nn.Module) -> str:
    """The same for equal weights: made of names, shapes, types and the first numbers of all of them."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().flatten()[:SAMPLED].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
