"""Where a model computes, and in which numbers, by the names users give them."""

from typing import TYPE_CHECKING

from seeless.errors import brief, one_line
from seeless.named.errors import ImpossiblePlace

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16", "float64")


def place_of(device: str | None) -> "torch.device":
    """The device of that name; a GPU if there is one unless told.

    Raises:
        ImpossiblePlace: there is no such device here.
    """
    import torch

    there = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if device is None:
        return torch.device("cuda" if there else "cpu")
    try:
        place = torch.device(device)
        if place.type == "meta":
            raise ValueError("tensors there have no values")
        torch.empty(1, device=place)
    except Exception as error:  # a name, a number, or a build of torch: each raises its own kind
        raise ImpossiblePlace(
            f"device {brief(device)} cannot be used: {one_line(error)}; here there is {', '.join(['cpu', *there])}"
        ) from error
    return place


def check_dtype(dtype: str | None) -> None:
    """Raise `ImpossiblePlace` unless a model can compute in numbers of that name; None: what suits the device."""
    if dtype is not None and dtype not in DTYPES:
        raise ImpossiblePlace(f"dtype {brief(dtype)} is none a model computes in; give {', '.join(DTYPES)}")


def check_attention(name: str) -> None:
    """Raise `ImpossiblePlace` unless `transformers` knows an attention implementation of that name, or it may be one
    of the hub's kernels (`owner/name`)."""
    from transformers import AttentionInterface

    known = ["eager", *AttentionInterface().valid_keys()]
    if name not in known and "/" not in name:
        raise ImpossiblePlace(
            f"attention {brief(name)} is none that transformers has; give sdpa, eager, flash_attention_2 or another of "
            f"{', '.join(sorted(known))}"
        )
