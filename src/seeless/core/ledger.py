"""How many visual tokens of any unit are left: counted on the host, though only the device knows which."""

import numpy as np

from seeless.core.units import Unit


class Ledger:
    """Blocks of tokens of every row, and how many tokens of each block are left.

    What a unit has left is known if it is made of whole blocks, or of parts of blocks that are full or empty.

    Args:
        counts: visual tokens of every row.
    """

    def __init__(self, counts: list[int]) -> None:
        self.block = [np.zeros(n, dtype=int) for n in counts]
        self.left: list[list[int | None]] = [[n] for n in counts]
        self.total = list(counts)

    def count(self, unit: Unit) -> int | None:
        """Tokens of a unit that are left; None if only the device knows."""
        block, left = self.block[unit.row], self.left[unit.row]
        numbers, inside = np.unique(block[unit.tokens], return_counts=True)
        result = 0
        for number, own in zip(numbers.tolist(), inside.tolist(), strict=True):
            known, size = left[number], int((block == number).sum())
            if known is None or (own < size and 0 < known < size):
                return None
            result += own if known == size else min(known, own)
        return result

    def book(self, unit: Unit, before: int, after: int) -> None:
        """A unit that had `before` tokens left has `after` now."""
        self._split(unit.row, unit.tokens, before, after)
        self.total[unit.row] += after - before

    def gone(self, row: int, tokens: np.ndarray) -> bool:
        """Whether all of some tokens of a row are known to have left."""
        return all(self.left[row][number] == 0 for number in np.unique(self.block[row][tokens]).tolist())

    def copy(self) -> "Ledger":
        """As it is now."""
        twin = Ledger(self.total)
        twin.block, twin.left = [own.copy() for own in self.block], [list(own) for own in self.left]
        return twin

    def _split(self, row: int, tokens: np.ndarray, before: int, after: int) -> None:
        block, left = self.block[row], self.left[row]
        for number in np.unique(block[tokens]).tolist():
            size, own = int((block == number).sum()), int((block[tokens] == number).sum())
            known = left[number]
            if own < size and known is not None:
                left[number] = size - own if known == size else 0 if known == 0 else None
        block[tokens] = len(left)
        left.append(after)
