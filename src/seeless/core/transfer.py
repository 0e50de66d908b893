"""Between host and device: everything at once, so that neither waits for the other more often than it must."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch


def fetch(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Whole numbers and truth values of some tensors on the host, as int64: one transfer, however many there are."""
    if not tensors:
        return {}
    device = next((x.device for x in tensors.values() if x.device.type != "cpu"), torch.device("cpu"))
    flat = [x.detach().reshape(-1).to(device, torch.int64, non_blocking=True) for x in tensors.values()]
    host = torch.cat(flat).numpy(force=True)
    ends = np.cumsum([x.numel() for x in tensors.values()])[:-1]
    return {name: part.reshape(x.shape) for (name, x), part in zip(tensors.items(), np.split(host, ends), strict=True)}


def upload(arrays: Sequence[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """Whole numbers on the device, int64: one copy, which nobody waits for."""
    flat = np.concatenate([np.ascontiguousarray(x, dtype=np.int64).reshape(-1) for x in arrays])
    moved = torch.from_numpy(flat).to(device, non_blocking=True)
    parts = moved.split([x.size for x in arrays]) if len(arrays) > 1 else (moved,)
    return [part.view(x.shape) for part, x in zip(parts, arrays, strict=True)]
