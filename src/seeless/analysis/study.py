"""What a study is: what it wants read of every picture, and what it makes of the means."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from seeless.analysis.gathering import Gathered, Measured
from seeless.analysis.reading import Reading
from seeless.errors import UnsupportedModel


@dataclass(frozen=True, eq=False)
class Seen:
    """One picture with its question, as a model takes it in.

    Args:
        inputs: what its processor gave.
        found: what was read of the layers that any study wants; None if none wants any.
    """

    model: nn.Module
    inputs: Mapping[str, Any]
    found: Reading | None

    @property
    def reading(self) -> Reading:
        """What was read, for a study that wants layers."""
        assert self.found is not None
        return self.found


class Study(ABC):
    """One question about where a model looks, asked of many pictures.

    Class attributes: `name` is what it is called on the command line and in files; `all_rows` says whether it needs
    all rows of attention, or those of the last token alone.
    """

    name: ClassVar[str]
    all_rows: ClassVar[bool]

    def layers(self, readable: Sequence[int]) -> list[int]:
        """Which of the decoder layers that can be read it wants, all of them unless it says; none if it reads none.

        Raises:
            UnsupportedModel: the decoder has too few.
        """
        if not readable:
            raise UnsupportedModel("no decoder layer of this model shows attention that could be read")
        return list(readable)

    @abstractmethod
    def measure(self, seen: Seen, layers: Sequence[int]) -> Measured:
        """What one picture gives; names begin with that of the study.

        Args:
            layers: what `layers` said.
        """

    @abstractmethod
    def numbers(self, gathered: Gathered) -> dict[str, Any]:
        """What came out, as plain JSON."""

    @abstractmethod
    def table(self, numbers: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
        """The few of these numbers that answer its question, as columns and rows of a table."""

    @abstractmethod
    def draw(self, gathered: Gathered, folder: Path, ending: str) -> list[Path]:
        """Draw it into files of a folder.

        Args:
            ending: ".png", ".svg" or ".pdf".
        """


def as_json(values: np.ndarray) -> Any:
    """Numbers of an array in lists, None for those that are none.

    >>> as_json(np.array([[0.5, np.nan]]))
    [[0.5, None]]
    """
    if values.ndim > 1:
        return [as_json(row) for row in values]
    return [None if np.isnan(value) else float(value) for value in values]


def percent(value: float | None) -> str:
    """A share in words.

    >>> percent(0.1234), percent(None)
    ('12.3 %', '-')
    """
    return "-" if value is None else f"{100 * value:.1f} %"


def rows_of(reading: Reading, kind: str, layers: Sequence[int]) -> np.ndarray:
    """`[layers, visual]` of one kind of rows, in some of the layers that were read."""
    return getattr(reading, kind)[[reading.layers.index(layer) for layer in layers]]


def facts_of(reading: Reading) -> Mapping[str, Any]:
    """What has to be the same for all pictures, so that there is a mean."""
    grid = None if reading.grid is None else list(reading.grid)
    return {"visual tokens": reading.last.shape[1], "grid": grid, "tower is read": reading.tower is not None}
