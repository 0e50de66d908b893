"""What a study has gathered so far: sums over pictures and values of all of them, kept in one file."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from seeless.errors import InputError, SeelessError, brief, one_line
from seeless.outputs import replace_file


class OtherStudy(SeelessError):
    """A folder that holds another study than the one that is asked for."""

    exit_code = 2


@dataclass(frozen=True, eq=False)
class Measured:
    """What one picture gives.

    Args:
        means: arrays to be averaged over pictures.
        pooled: arrays of which every value is kept.
        facts: what is the same for all pictures, as plain JSON.
    """

    means: Mapping[str, np.ndarray] = field(default_factory=dict)
    pooled: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Gathered:
    """What some pictures gave, in their order. Never changed: `with_one` makes a new one.

    Args:
        samples: how many gave something.
        left_out: pictures that gave nothing, and why.
        sums: over pictures, float64.
        pooled: the values of all pictures, `[pictures, ...]` of each, float32.
        facts: what is the same for all.
    """

    samples: int = 0
    left_out: tuple[tuple[str, str], ...] = ()
    sums: Mapping[str, np.ndarray] = field(default_factory=dict)
    pooled: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """How many pictures have been dealt with."""
        return self.samples + len(self.left_out)

    def mean(self, name: str) -> np.ndarray:
        """The plain mean over pictures."""
        return self.sums[name] / self.samples

    def values(self, name: str) -> np.ndarray:
        """All values, `[pictures, ...]`."""
        return np.stack(self.pooled[name])

    def with_one(self, name: str, measured: Measured) -> "Gathered":
        """This and one picture more.

        Raises:
            InputError: it has another number of visual tokens, or another grid of them, than those before.
        """
        if self.samples == 0:
            sums = {key: np.asarray(value, np.float64) for key, value in measured.means.items()}
            pooled: dict[str, tuple[np.ndarray, ...]] = {k: (_single(value),) for k, value in measured.pooled.items()}
            return Gathered(1, self.left_out, sums, pooled, dict(measured.facts))
        for fact, value in measured.facts.items():
            if value != self.facts[fact]:
                raise InputError(
                    f"{brief(name)} has {fact}={value}, the pictures before it have {fact}={self.facts[fact]}; a mean "
                    "over pictures needs the same visual tokens of each: bring them to one size, --size 448x448 "
                    "(size=(448, 448) in Python)"
                )
        sums = {key: self.sums[key] + value for key, value in measured.means.items()}
        pooled = {key: (*self.pooled[key], _single(value)) for key, value in measured.pooled.items()}
        return Gathered(self.samples + 1, self.left_out, sums, pooled, self.facts)

    def without_one(self, name: str, reason: str) -> "Gathered":
        """This, and one picture that gave nothing."""
        return Gathered(self.samples, (*self.left_out, (name, reason)), self.sums, self.pooled, self.facts)


def _single(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)


def save(gathered: Gathered, file: Path, settings: Mapping[str, Any], pictures: str) -> None:
    """Replace a file by what is gathered, and what it depends on.

    Args:
        settings: plain JSON.
        pictures: a fingerprint of those that have been dealt with.

    Raises:
        UnwritableFile: it cannot be written.
    """
    head = {"settings": settings, "pictures": pictures, "samples": gathered.samples}
    head |= {"left_out": gathered.left_out, "facts": gathered.facts}
    arrays = {f"sum {name}": value for name, value in gathered.sums.items()}
    arrays |= {f"all {name}": np.stack(values) for name, values in gathered.pooled.items()}
    written = io.BytesIO()
    np.savez(written, head=np.array(json.dumps(head)), **arrays)  # type: ignore[arg-type]
    replace_file(file, written.getvalue())


def load(file: Path, settings: Mapping[str, Any], fingerprint: Callable[[int], str]) -> Gathered:
    """What `save` wrote, or nothing gathered where there is no file.

    Args:
        fingerprint: of the first so many pictures that are asked for now.

    Raises:
        OtherStudy: it was written with other settings or for other pictures, or is no such file.
    """
    if not file.exists():
        return Gathered()
    try:
        with np.load(file, allow_pickle=False) as saved:
            head, arrays = json.loads(str(saved["head"])), {name: saved[name] for name in saved.files}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise OtherStudy(f"{brief(file)} cannot be read: {one_line(error)}; give another --output") from error
    asked = json.loads(json.dumps(settings))
    for name in (*asked, *head["settings"]):
        if (before := head["settings"].get(name)) != asked.get(name):
            raise OtherStudy(
                f"{brief(file)} was made with {name}={before!r}, not {asked.get(name)!r}; go on with the same, or give "
                "another --output"
            )
    gathered = Gathered(
        samples=head["samples"],
        left_out=tuple((name, reason) for name, reason in head["left_out"]),
        sums={name[4:]: value for name, value in arrays.items() if name.startswith("sum ")},
        pooled={name[4:]: tuple(value) for name, value in arrays.items() if name.startswith("all ")},
        facts=head["facts"],
    )
    if fingerprint(gathered.done) != head["pictures"]:
        raise OtherStudy(
            f"{brief(file)} holds {gathered.done} pictures, which are not the first {gathered.done} of those asked for "
            "now; go on with the same, or give another --output"
        )
    return gathered
