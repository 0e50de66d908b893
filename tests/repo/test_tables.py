"""The generated parts of the README and of docs/ are what `make tables` would write now."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import seeless as sl
from seeless.eval.rows import key_of
from seeless.registry import strategy_class

ROOT = Path(__file__).parents[2]


def test_the_tables_are_fresh():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_tables.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]


@pytest.fixture
def make_tables(monkeypatch):
    for folder in ("docs", "tests/contracts", "tests"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    import make_tables

    return make_tables


def test_the_sweep_is_of_all_methods_at_four_budgets(make_tables):
    rows = make_tables.sweep_rows()
    swept = {(row["strategy"], row["keep"]) for row in rows}
    built_in = [name for name in sl.available() if strategy_class(name).__module__.startswith("seeless.")]
    assert swept >= {(name, keep) for name in built_in for keep in (0.5, 0.25, 0.11, 0.05)} | {("none", 1.0)}
    assert len({key_of(row) for row in rows}) == len(rows)


def test_the_reader_tells_good_from_bad_at_a_quarter_and_at_half_of_its_depth(make_tables):
    """Keeping 11 %, chance and the worst choice before a layer are 15 points below the best choice there, or more."""
    from reader_tables import DRAWINGS, reader_rows

    rows = [row for row in reader_rows() if row["keep"] == 64 and "scores" in row]
    at = {row["strategy"]: row["scores"][DRAWINGS]["accuracy"]["value"] for row in rows}
    for good, *others in (("fastv", "random_2", "worst_2"), ("fastv_4", "random_4", "worst_4")):
        assert all(at[other] <= at[good] - 0.15 for other in others)
    assert max(at["fastervlm"], at["vispruner"], at["divprune"]) >= at["random"] + 0.15


def test_another_result_makes_tables_and_picture_stale(make_tables, monkeypatch, tmp_path):
    """The check of the pages compares what is written here with what would be written."""
    other = tmp_path / "sweep.jsonl"
    lines = make_tables.SWEEP.read_text().splitlines()
    number = max(number for number, line in enumerate(lines) if "scores" in json.loads(line))  # refused ones have none
    row = json.loads(lines[number])
    row["scores"]["seeless_scenes"]["accuracy"]["value"] = row["scores"]["seeless_scenes"]["count"]["value"] = 0.123
    other.write_text("\n".join([*lines[:number], json.dumps(row), *lines[number + 1 :]]) + "\n")
    drawn = make_tables.drawn_from(make_tables.SWEEP_PICTURE)
    assert drawn == make_tables.fingerprint([make_tables.SWEEP]) != make_tables.fingerprint([other])
    before = make_tables.accuracy_table(), make_tables.kinds_table()
    assert all(table in make_tables.SWEPT.read_text() for table in before)
    monkeypatch.setattr(make_tables, "SWEEP", other)
    assert "12.3 ·" in make_tables.accuracy_table() and before[0] != make_tables.accuracy_table()
    assert before[1] != make_tables.kinds_table()
