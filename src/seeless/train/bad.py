"""The list of records that cannot be trained on."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from seeless.train.errors import BadRecords
from seeless.train.records import BadRecord, Record

SHOWN = 3


class BadRecordList:
    """Reports bad records in a JSONL file, and refuses them unless they are to be skipped.

    Args:
        file: one line per record: `file`, `where`, `id`, `reason` and when it was `found`.
        skip: go on without them.
    """

    def __init__(self, file: Path, skip: bool) -> None:
        self.file, self.skip = file, skip
        self._known: set[tuple[str, str]] = set()

    @property
    def count(self) -> int:
        """Records listed so far, by whichever process."""
        if not self.file.is_file():
            return 0
        lines = map(json.loads, self.file.read_text(encoding="utf-8").splitlines())
        return len({(line["file"], line["where"]) for line in lines})

    def start(self, bad: list[BadRecord], total: int, write: bool) -> None:
        """Report what was found before training, in a fresh file.

        Args:
            total: records read, good ones included.
            write: whether this process writes the file (the first of several does).

        Raises:
            BadRecords: there are some, and they are not to be skipped.
        """
        if write:
            self.file.unlink(missing_ok=True)
            for record in bad:
                self._append(record, "before training")
        if not bad:
            return
        first = "; ".join(f"{record.file}, {record}" for record in bad[:SHOWN]) + (
            f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        )
        what = f"{len(bad)} of {total} records cannot be trained on ({first}); all are listed in {self.file}"
        if not self.skip or len(bad) == total:
            raise BadRecords(f"{what}; mend them, or go on without them with --skip-bad-records")
        if write:
            print(f"{what}; going on without them", file=sys.stderr)

    def found(self, record: Record, reason: str) -> None:
        """Report a record that turned out bad while training; once, however often it comes up.

        Whichever process finds it writes the line, in one piece.

        Raises:
            BadRecords: it is not to be skipped.
        """
        bad = BadRecord(record.file, record.where, record.name, reason)
        if (bad.file, bad.where) not in self._known:
            self._known.add((bad.file, bad.where))
            self._append(bad, "while training")
            if self.skip:
                print(f"cannot train on {bad.file}, {bad}; taking the next record instead", file=sys.stderr)
        if not self.skip:
            raise BadRecords(
                f"cannot train on {bad.file}, {bad}; mend it, or go on without such records with --skip-bad-records"
            )

    def _append(self, bad: BadRecord, found: str) -> None:
        line = {**asdict(bad), "found": found}
        line["id"] = line.pop("name")
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
