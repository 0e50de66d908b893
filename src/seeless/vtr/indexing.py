"""What an index into an attention map names."""

from typing import Any

import torch

from seeless.errors import InputError


def needs_all(what: str) -> InputError:
    """The refusal of something that cannot be done with a part of the map."""
    return InputError(
        f"{what} needs the whole attention map; index the rows and columns you use first, such as "
        "attention[:, :, -1, start:end], or ask for all of it with attention.dense()"
    )


def plain_key(key: Any) -> Any:
    """A key as None, Ellipsis, a slice, an int or a tensor on the CPU."""
    if key is None or key is Ellipsis or isinstance(key, slice):
        return key
    if isinstance(key, bool):
        raise needs_all("an index that is one truth value")
    if isinstance(key, int):
        return key
    places = torch.as_tensor(list(key) if isinstance(key, range) else key).cpu()
    places = places.bool() if places.dtype == torch.uint8 else places  # as torch has it
    if places.ndim == 0 and places.dtype != torch.bool:
        return int(places)
    if places.dtype == torch.bool and places.ndim != 1:
        raise needs_all("a mask of several dimensions")
    return places if places.dtype == torch.bool or places.numel() else places.long()


def checked_key(key: Any, size: int) -> Any:
    """A key within a dimension of `size`; masks and negative places as places."""
    if isinstance(key, slice):
        return key
    if isinstance(key, int):
        if not -size <= key < size:
            raise IndexError(f"index {key} is out of range for attention with {size} there")
        return key % size
    if key.dtype == torch.bool:
        if len(key) != size:
            raise IndexError(f"a mask of {len(key)} does not fit attention with {size} there")
        return key.nonzero()[:, 0]
    if key.is_floating_point():
        raise IndexError(f"places must be whole numbers, not {key.dtype}")
    if key.numel() and not (-size <= int(key.min()) and int(key.max()) < size):
        raise IndexError(f"an index is out of range for attention with {size} there")
    return key.long() % size if size else key.long()
