"""Documents that cannot be read: named, counted, and never left out in silence."""

from collections.abc import Sequence
from dataclasses import dataclass

import seeless as sl

SHOWN = 20


@dataclass(frozen=True)
class BadDocument:
    """A document of a task that cannot be asked about, and why."""

    task: str
    doc_id: int
    reason: str

    def __str__(self) -> str:
        return f"{self.task}, document {self.doc_id}: {self.reason}"


class BadDocuments(sl.SeelessError):
    """Documents of a run that could not be asked about, so that there is no result over all of them."""

    def __init__(self, bad: Sequence[BadDocument]) -> None:
        self.bad = sorted(set(bad), key=lambda each: (each.task, each.doc_id))
        listed = "\n".join(f"  {each}" for each in self.bad[:SHOWN])
        more = f"\n  and {len(self.bad) - SHOWN} more" if len(self.bad) > SHOWN else ""
        super().__init__(
            f"{len(self.bad)} documents cannot be read, so there is no result over the whole task; mend or remove them:"
            f"\n{listed}{more}"
        )
