"""Result files that were cut off, damaged or edited."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeless.eval.rows import KEY, key_of, read_rows
from seeless.jsonl import append_lines

SCORE = {"value": 0.5, "n": 8, "low": 0.25, "high": 0.75}
ROW = {
    **{"model": "tiny", "weights": "w", "strategy": "fastv", "fields": {}, "keep": 0.5, "seed": None, "tasks": ["t"]},
    **{"limit": None, "scores": {"t": {"accuracy": SCORE}}, "loyalty": {"agreement": SCORE, "kl": 0.1, "kl_n": 8}},
    **{"tokens": {"average": 72.0}, "flops": {"share": 0.5}},
}


def row(**values):
    return {**ROW, **values}


def test_rows_come_back(tmp_path):
    file = tmp_path / "sweep.jsonl"
    assert read_rows(file) == ([], [])
    rows = [row(keep=0.5, strategy="fastv"), row(keep=0.25, note="Übung\nline 2")]
    for each in rows:
        append_lines(file, each)
    assert read_rows(file) == (rows, [])


def test_broken_lines_are_named_and_the_rest_is_read(tmp_path):
    file = tmp_path / "sweep.jsonl"
    append_lines(file, row(keep=0.5))
    with file.open("ab") as out:
        out.write(b'{"model": "tiny", "wei\n\n[1, 2]\n\xff\xfe\n{"model": 1}\n')
    append_lines(file, row(keep=0.25))
    unjudged = {name: value for name, value in row(keep=0.1).items() if name != "scores"}
    with file.open("a") as out:
        out.write(json.dumps(unjudged) + "\n")
    rows, broken = read_rows(file)
    assert [each["keep"] for each in rows] == [0.5, 0.25]
    assert [each.line for each in broken] == [2, 4, 5, 6, 8]
    assert "sweep.jsonl, line 2: no JSON" in str(broken[0])
    assert "lacks weights, strategy" in broken[3].reason and broken[4].reason.endswith("lacks scores")


@given(st.integers(0, 400))
def test_a_file_cut_off_anywhere_loses_the_last_row_alone(tmp_path_factory, cut):
    file = tmp_path_factory.mktemp("cut") / "sweep.jsonl"
    written = [row(keep=number / 10) for number in range(3)]
    for each in written:
        append_lines(file, each)
    data = file.read_bytes()
    whole = data[: min(cut, len(data))]
    file.write_bytes(whole)
    append_lines(file, row(keep=0.9))
    rows, broken = read_rows(file)
    kept = [each["keep"] for each in rows]
    assert kept[-1] == 0.9 and kept[:-1] == [each["keep"] for each in written[: len(kept) - 1]]
    assert len(broken) <= 1 and len(kept) - 1 in (whole.count(b"\n"), whole.count(b"\n") + 1)


@pytest.mark.parametrize("name", KEY)
def test_every_part_of_the_key_counts(name):
    assert key_of(row()) != key_of(row(**{name: "other"}))


def test_the_rest_does_not():
    assert key_of(row(time="noon", commit="a")) == key_of(row(time="night", commit="b"))
