"""Units of equal size from all rows of a batch, as one set of tensors."""

from collections import defaultdict
from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from seeless.core.transfer import upload
from seeless.core.units import Unit

if TYPE_CHECKING:
    from seeless.core.session import Session


class Uneven(Exception):
    """A strategy asked for something whose size differs among the units of a group; they must be asked apart.

    Args:
        what: "text", the text after the images, "row", all of a row, or "question", what is asked.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Group:
    """Units of equal size at one stage.

    Args:
        units: of equally many original tokens.
        present: how many each has left.
        alike: in what else their rows are of one size; see `Uneven`.
    """

    def __init__(self, session: "Session", units: list[Unit], present: int, alike: Collection[str]) -> None:
        self.session, self.units, self.present, self.alike = session, units, present, frozenset(alike)
        self.rows, self.original = session.uploaded(units)

    @property
    def visual(self) -> int:
        """Tokens each unit had when it entered."""
        return len(self.units[0].tokens)

    @property
    def complete(self) -> bool:
        return self.present == self.visual

    def host(self, values: list[np.ndarray]) -> torch.Tensor:
        """Whole numbers of every unit, on the device of the plan."""
        return upload([np.stack(values)], self.rows.device)[0]

    @cached_property
    def index(self) -> torch.Tensor:
        """`[units, visual]`, places of what is left among each unit's original tokens."""
        session = self.session
        if self.complete and session.row.token is None:
            return torch.arange(self.visual, device=self.rows.device).expand(len(self.units), -1)
        alive = session.alive[self.rows[:, None], self.original]
        if session.row.token is None:
            return alive.byte().argsort(dim=1, descending=True, stable=True)[:, : self.present]
        slots = session.row.at(self.rows[:, None], self.original, session.prompt.length)
        return slots.masked_fill(~alive, session.row.slots).argsort(dim=1, stable=True)[:, : self.present]

    @cached_property
    def columns(self) -> torch.Tensor:
        """`[units, visual]`, columns of the input at which they stand."""
        return self.original if self.complete and self.session.row.token is None else self.of_original(self.original)

    def of_original(self, values: torch.Tensor) -> torch.Tensor:
        """Of `values` `[units, visual]` of the original tokens those of the ones that are left."""
        whole = self.complete and self.session.row.token is None
        return values if whole else values.gather(1, self.index.to(values.device))

    @cached_property
    def slots(self) -> torch.Tensor:
        """`[units, visual]`, where they stand now."""
        return self.session.row.at(self.rows[:, None], self.columns, self.session.prompt.length)

    @cached_property
    def together(self) -> bool:
        """Whether there is one unit for each row of the batch, in their order."""
        return [unit.row for unit in self.units] == list(range(self.session.prompt.batch))

    def need_alike(self, what: str) -> None:
        """Raises `Uneven` unless all rows are of one size in this."""
        if what not in self.alike and len({self.session.sizes(unit.row)[what] for unit in self.units}) > 1:
            raise Uneven(what)


def group_units(
    session: "Session", units: list[Unit], counts: list[int], apart: bool, alike: Collection[str]
) -> list[Group]:
    """Units that fill dense tensors: of equal tokens, grid, number of answers, and what else must be `alike`.

    Args:
        counts: tokens of each unit that are left; units without any are left out.
        apart: every unit is a group of its own.
    """
    groups: dict[tuple, list[int]] = defaultdict(list)
    for number, (unit, count) in enumerate(zip(units, counts, strict=True)):
        if count:
            sizes = session.sizes(unit.row)
            more = tuple(sizes[what] for what in ("answers", *sorted(alike)))
            groups[count, len(unit.tokens), unit.grid, more, number if apart else None].append(number)
    return [Group(session, [units[i] for i in own], key[0], alike) for key, own in groups.items()]
