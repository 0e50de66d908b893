"""The most memory that tensors take at once."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Bytes of the tensors that operations make, while it is active: `peak` is the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.holders: dict[int, int] = {}  # by storage: how many tensors there are on it
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        before = _tensors((args, kwargs))
        given, known = {id(x) for x in before}, {x.untyped_storage().data_ptr() for x in before}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            place, size = storage.data_ptr(), storage.nbytes()
            if id(tensor) in given or (place in known and place not in self.holders):
                continue  # the very tensor, or a view of one, that was there before
            if place not in self.holders:
                self.live += size
                self.peak = max(self.peak, self.live)
            self.holders[place] = self.holders.get(place, 0) + 1
            weakref.finalize(tensor, self._gone, place, size)
        return result

    def _gone(self, place: int, size: int) -> None:
        self.holders[place] -= 1
        if not self.holders[place]:
            del self.holders[place]
            self.live -= size


def _tensors(values: Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, torch.Tensor)]


def peak_bytes(device: torch.device, run: Callable[[], Any]) -> int:
    """The most that `run` takes beside what was there: by a GPU's allocator, elsewhere by what tensors hold."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with Allocations() as allocations:
        run()
    return allocations.peak
