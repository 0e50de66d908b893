"""Lines of JSON: where they end, what is none, and that they are written whole or not at all."""

import json
import multiprocessing
import os
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeless.jsonl import NoJSON, append_lines, decode, encode, read_lines
from seeless.outputs import UnwritableFile

ODD = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\rj\r\nk\nl"


def test_a_line_ends_at_a_line_feed_alone(tmp_path):
    file = tmp_path / "x.jsonl"
    append_lines(file, {"text": ODD}, {"text": "second"})
    append_lines(file, {"text": ODD * 3})
    assert [(number, value["text"]) for number, value in read_lines(file)] == [(1, ODD), (2, "second"), (3, ODD * 3)]
    with file.open(newline="\n", encoding="utf-8") as stream:  # as any other reader of JSON lines has it
        assert [json.loads(line)["text"] for line in stream] == [ODD, "second", ODD * 3]


@given(st.text(alphabet=st.characters(), max_size=40))  # half surrogates, too
def test_whatever_text_comes_back(text):
    line = encode({"text": text})
    assert b"\n" not in line and line.decode("utf-8")
    assert json.loads(line) == {"text": text} == decode(line)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1', r"Expecting ',' delimiter \(column 8\)"),
        ('{"a": 1} 2', r"something follows the value \(column 9\)"),
        ("", "Expecting value"),
        ("[" * 100_000 + "]" * 100_000, "nest too deeply"),
        ("1" * 5000, "4300 digits"),
        ('{"a": NaN}', "NaN is no JSON value"),
        ("[-Infinity]", "-Infinity is no JSON value"),
        ('{"a": {"b": 1, "b": 2}}', "the key 'b' occurs twice"),
        ('{"%s": 1, "%s": 2}' % (("x" * 28_000,) * 2), r"occurs twice"),
        (b'{"a": "\xff"}', r"no UTF-8 \(byte 8\)"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_json_is_said_in_a_few_words(text, reason):
    with pytest.raises(NoJSON, match=reason) as error:
        decode(text)
    assert len(str(error.value)) < 500


def test_broken_lines_do_not_hide_the_others(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_bytes(b'{"a": 1}\n\n{"a": \n{"b": NaN}\n\xff\n{"c": 3}')
    found = dict(read_lines(file))
    assert list(found) == [1, 3, 4, 5, 6] and found[1] == {"a": 1} and found[6] == {"c": 3}
    assert isinstance(found[3], NoJSON) and isinstance(found[5], NoJSON) and found[4]["b"] != found[4]["b"]
    assert list(read_lines(tmp_path / "missing.jsonl")) == []


def test_an_unfinished_line_stays_a_line_of_its_own(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_bytes(b'{"a": 1}\n{"half')
    append_lines(file, {"b": 2})
    assert file.read_bytes() == b'{"a": 1}\n{"half\n{"b": 2}\n'


def _append_within(limit, file, values):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        append_lines(file, *values)
    except UnwritableFile as error:
        raise SystemExit(3) from error


@pytest.mark.parametrize("room", [0, 1, 30])
def test_a_disk_that_fills_up_keeps_no_half_line(tmp_path, room):
    """A quota cuts a write short: it takes a part of the line, and refuses the rest."""
    file = tmp_path / "x.jsonl"
    append_lines(file, {"first": 1})
    before = file.read_bytes()
    started = multiprocessing.get_context("fork").Process(
        target=_append_within, args=(len(before) + room, file, [{"text": "x" * 100}, {"text": "y"}])
    )
    started.start()
    started.join()
    assert started.exitcode == 3 and file.read_bytes() == before
    append_lines(file, {"second": 2})
    assert [value for _, value in read_lines(file)] == [{"first": 1}, {"second": 2}]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_the_reason_of_the_system_is_told(tmp_path):
    (tmp_path / "x.jsonl").symlink_to("/dev/full")
    with pytest.raises(UnwritableFile, match=r"cannot write .*x\.jsonl: No space left"):
        append_lines(tmp_path / "x.jsonl", {})


def _append_many(file, name):
    for number in range(50):
        append_lines(file, {"name": name, "number": number, "text": "x" * 3000})


def test_lines_of_several_processes_do_not_mix(tmp_path):
    file = tmp_path / "x.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(file, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [(value["name"], value["number"]) for _, value in read_lines(file)]
    assert sorted(found) == sorted((name, number) for name in "abc" for number in range(50))
