"""Reading LLaVA-format data: what is good is read, what is not is named."""

import json

import pytest

from seeless.train import BadRecordList, BadRecords, read_records
from training_data import entry, write_data


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_good_records(tmp_path, suffix):
    records, bad = read_records(write_data(tmp_path, 4, suffix))
    assert bad == []
    assert [record.where for record in records] == [
        f"{'record' if suffix == 'json' else 'line'} {n}" for n in range(1, 5)
    ]
    assert [len(record.images) for record in records] == [1, 0, 1, 2]
    assert records[0].turns[0] == ("user", "<image>\nhow many digits?")
    assert [role for role, _ in records[0].turns] == ["user", "assistant", "user", "assistant"]
    assert records[1].name == "text 1" and records[3].images[1] == tmp_path / "0.png"


def test_pictures_elsewhere_and_a_system_turn(tmp_path):
    write_data(tmp_path / "pictures")
    record = entry("x", ["<image>what?", "7"], "0.png")
    record["conversations"].insert(0, {"from": "system", "value": "be brief"})
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(record) + "\n\n")
    assert read_records(file)[1][0].reason.startswith("no picture")
    (good,), bad = read_records(file, tmp_path / "pictures")
    assert bad == [] and good.turns[0] == ("system", "be brief")


Q, A = "<image>which digit is red?", "7"
BAD = {
    "picture is missing": (entry("x", [Q, A], "9.png"), "no picture"),
    "no mark": (entry("x", ["which?", A], "0.png"), "1 picture, but no <image>"),
    "too few marks": (entry("x", [Q, A], ["0.png", "1.png"]), "2 pictures, but 1 <image>"),
    "too many marks": (entry("x", ["<image>" + Q, A], "0.png"), "2 <image> in the questions, but 1 picture"),
    "mark without picture": (entry("x", [Q, A]), "1 <image> in the questions, but no pictures"),
    "mark in an answer": (entry("x", [Q, "<image>"], "0.png"), "turn 2 has an <image> outside a question"),
    "no conversation": ({"id": "x", "image": "0.png"}, "no conversation"),
    "empty conversation": (entry("x", []), "no conversation"),
    "no answer": (entry("x", ["which?"]), "no answer"),
    "empty answer": (entry("x", ["which?", " "]), "turn 2 is an empty answer"),
    "open end": (entry("x", ["which?", A, "and?"]), "last question has no answer"),
    "answer first": (
        {"conversations": [{"from": "gpt", "value": A}, {"from": "human", "value": "?"}]},
        "turn 1 is from the assistant",
    ),
    "two questions": (
        {"conversations": [{"from": "human", "value": "?"}] * 2 + [{"from": "gpt", "value": A}]},
        "turn 2 is from the user",
    ),
    "late system": (
        {"conversations": [{"from": "human", "value": "?"}, {"from": "system", "value": A}]},
        "turn 2 is from the system",
    ),
    "unknown role": ({"conversations": [{"from": "me", "value": "?"}]}, "turn 1 is from 'me'"),
    "turn without text": ({"conversations": [{"from": "human"}]}, "turn 1 is no"),
    "picture that is a number": (entry("x", [Q, A], 3), "neither a file name nor a list"),
    "video": (entry("x", [Q, A]) | {"video": "a.mp4"}, "has a video"),
    "the model's own token": (entry("x", ["<|image_pad|>?", A]), "<|image_pad|>, which the model keeps"),
    "a list": ([1], "no JSON object"),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_bad_records(tmp_path, data, reason, suffix):
    write_data(tmp_path)
    records = [entry("good", ["which?", A]), data, entry("good", ["which?", A])]
    file = tmp_path / f"some.{suffix}"
    file.write_text(json.dumps(records) if suffix == "json" else "\n".join(map(json.dumps, records)))
    good, (bad,) = read_records(file, reserved=["<image>", "<|image_pad|>"])
    assert len(good) == 2
    assert bad.where == ("record 2" if suffix == "json" else "line 2")
    assert reason in bad.reason and bad.name == (data["id"] if isinstance(data, dict) and "id" in data else None)


def test_broken_lines_count_blank_ones_too(tmp_path):
    good = json.dumps(entry("x", ["which?", "a\u2028b"]), ensure_ascii=False)
    (tmp_path / "x.jsonl").write_text(f"{good}\n\n{{broken\n{good}", encoding="utf-8")
    records, (bad,) = read_records(tmp_path / "x.jsonl")
    assert [record.where for record in records] == ["line 1", "line 4"]
    assert (bad.where, bad.name) == ("line 3", None) and bad.reason.startswith("no JSON")


@pytest.mark.parametrize("content", [None, "", "[]", '[{"id": 1},', b"\xff\xfe"])
def test_files_that_are_no_data(tmp_path, content):
    file = tmp_path / "x.json"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadRecords, match=r"x\.json"):
        read_records(file)


def test_bad_records_are_refused_or_listed(tmp_path, capsys):
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(["{", json.dumps(entry("a", ["?", "7"])), "{", "[]", "{", json.dumps(entry("b", ["?"]))]))
    good, bad = read_records(file)
    listed = tmp_path / "bad.jsonl"
    with pytest.raises(BadRecords, match=r"5 of 6 records .*line 1: no JSON.*and 2 more.*--skip-bad-records"):
        BadRecordList(listed, skip=False).start(bad, 6, write=True)
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [line["where"] for line in lines] == ["line 1", "line 3", "line 4", "line 5", "line 6"]
    assert lines[4] == {
        "file": str(file),
        "where": "line 6",
        "reason": "no answer",
        "found": "before training",
        "id": "b",
    }

    report = BadRecordList(listed, skip=True)
    report.start(bad, 6, write=True)
    assert "going on without them" in capsys.readouterr().err
    for _ in range(2):
        report.found(good[0], "cannot read the picture")
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert len(lines) == 6 and lines[5]["found"] == "while training"
    with pytest.raises(BadRecords, match="2 of 2"):
        report.start(bad[:2], 2, write=False)
