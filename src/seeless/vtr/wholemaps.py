"""Whole attention maps: said once, and refused where they are too large."""

import warnings
from dataclasses import dataclass

import torch

from seeless.errors import InputError

DENSE_AT_MOST = 4 * 2**30  # bytes


@dataclass
class WholeMaps:
    """Whether a strategy may have more of an attention map than it named: `DENSE_AT_MOST` bytes, with a warning.

    Args:
        name: of the strategy.
        told: whether it was warned; once is enough.
    """

    name: str = "this strategy"
    told: bool = False

    def ask(self, what: str, shape: torch.Size, dtype: torch.dtype, whole: bool) -> None:
        """Warn, the first time, that all rows of a map come into being.

        Args:
            what: the operation that needs them.
            whole: False for rows that the strategy has named; these are not worth a warning.

        Raises:
            InputError: they would be too large.
        """
        size = shape.numel() * dtype.itemsize
        numbers = f"{' x '.join(map(str, shape))} numbers ({readable(size)})"
        rows = "all rows of the attention map" if whole else "these rows of the attention map"
        way_out = "index the rows and columns that are used before anything else, as in attention[:, :, -1, start:end]"
        if size > DENSE_AT_MOST:
            raise InputError(
                f"{self.name}: {what} needs {rows} at once, {numbers}, more than the {readable(DENSE_AT_MOST)} that "
                f"are made unasked; {way_out}, or ask for them with attention.dense()"
            )
        if whole and not self.told:
            self.told = True
            warnings.warn(f"{self.name}: {what} needs {rows} at once, {numbers}; where fewer rows do, {way_out}")


def readable(size: int) -> str:
    """Bytes in words.

    >>> readable(1572864), readable(4 * 2**30), readable(900)
    ('1.5 MiB', '4.0 GiB', '900 bytes')
    """
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
