"""The list of records that cannot be trained on."""

import sys
from dataclasses import asdict
from pathlib import Path

from seeless.jsonl import append_lines, read_lines
from seeless.outputs import writing
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
        lines = (line for _, line in read_lines(self.file))
        return len({(str(line.get("file")), str(line.get("where"))) for line in lines if isinstance(line, dict)})

    def start(self, bad: list[BadRecord], total: int, write: bool) -> None:
        """Report what was found before training, in a fresh file.

        Args:
            total: records read, good ones included.
            write: whether this process writes the file (the first of several does).

        Raises:
            BadRecords: there are some, and they are not to be skipped.
            UnwritableFile: the file cannot be written.
        """
        if write:
            with writing(self.file):
                self.file.unlink(missing_ok=True)
        if not bad:
            return
        if write:
            append_lines(self.file, *(_line(record, "before training") for record in bad))
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
            UnwritableFile: the file cannot be written.
        """
        bad = BadRecord(record.file, record.where, record.name, reason)
        if (bad.file, bad.where) not in self._known:
            self._known.add((bad.file, bad.where))
            append_lines(self.file, _line(bad, "while training"))
            if self.skip:
                print(f"cannot train on {bad.file}, {bad}; taking the next record instead", file=sys.stderr)
        if not self.skip:
            raise BadRecords(
                f"cannot train on {bad.file}, {bad}; mend it, or go on without such records with --skip-bad-records"
            )


def _line(bad: BadRecord, found: str) -> dict[str, str | None]:
    line = {**asdict(bad), "found": found}
    line["id"] = line.pop("name")
    return line
