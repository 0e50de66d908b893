"""Data files as people have them, and records that no parser, file system or tokenizer would take."""

import base64
import json

import pytest
import torch

from seeless.datafile import UnreadableFile
from seeless.datafile import read_records as entries
from seeless.tiny import draw_scene
from seeless.train import BadRecordList, BadRecords, Batches, read_records
from training_data import entry, llava_processor

GOOD = [entry("a", ["which?", "7"]), entry("b", ["what \u2028 is \x85 it?", "ü"])]
LINES = "\n".join(json.dumps(each, ensure_ascii=False) for each in GOOD)
SHAPES = {
    "list": json.dumps(GOOD, indent=2),
    "lines": LINES + "\n",
    "lines of Windows": LINES.replace("\n", "\r\n") + "\r\n\r\n",
    "list in an object": json.dumps({"version": 1, "data": GOOD, "tags": ["x"]}, indent=1),
    "list in an object in one line": json.dumps({"records": GOOD}),
}


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_usual_shape_and_encoding(tmp_path, text, encoding):
    file = tmp_path / "x"
    file.write_bytes(text.encode(encoding))
    records, bad = read_records(file)
    assert bad == [] and [record.name for record in records] == ["a", "b"]
    assert [record.turns[0][1] for record in records] == ["which?", "what \u2028 is \x85 it?"]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_single_record(tmp_path, indent):
    (tmp_path / "x.json").write_text(json.dumps(GOOD[0], indent=indent))
    (record,), bad = read_records(tmp_path / "x.json")
    assert bad == [] and (record.name, record.where) == ("a", "record 1" if indent else "line 1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1}', "one JSON object, not a list of records; it has no 'conversations' and no list of records"),
        (json.dumps({"train": GOOD, "test": GOOD}), "several lists: 'train', 'test'"),
        ("\n".join(json.dumps(each, indent=1) for each in GOOD), r"goes over several lines, .* \(line 1[0-9]\)"),
        (json.dumps(GOOD)[:-1], r"behind record 2 \(line 1\) there is no , or \]"),
        (json.dumps(GOOD, indent=0)[:-30], r"record 2 \(line \d+\): "),
        (json.dumps(GOOD) + json.dumps(GOOD), "something follows its end"),
        ("id,image,text\n1,a.png,what?\n", r"neither a JSON list nor JSON lines; line 1: Expecting value"),
        (b"\x89PNG\r\n\x1a\n" + bytes(4000), "neither a JSON list nor JSON lines"),
        ("x" * 28_000, "neither a JSON list nor JSON lines"),
        ("[" * 100_000, "record 1 .*nest too deeply"),
        (b"\xff\xfe[\x00\x00\xd8", "it begins as utf-16"),
        ("[]", "no records"),
        ("\n", "no records"),
    ],
    ids=range(13),
)
def test_files_that_are_no_data_are_refused_in_a_sentence(tmp_path, text, reason):
    file = tmp_path / "x.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadRecords, match=reason) as error:
        read_records(file)
    assert "x.json" in str(error.value) and len(str(error.value)) < 1000


def test_a_name_that_no_file_has(tmp_path):
    with pytest.raises(BadRecords, match="cannot read") as error:
        read_records(tmp_path / ("x" * 28_000))
    assert len(str(error.value)) < 1000


def odd(text):
    """A record as it stands in a file, with a field of some text in it."""
    return json.dumps(entry("odd", ["which?", "7"]))[:-1] + f', "more": {text}}}'


PHOTO = base64.b64encode(bytes(range(256)) * 100).decode()
ODD = {
    "not a number": (odd("NaN"), "NaN is no JSON value"),
    "infinite": (odd("-Infinity"), "-Infinity is no JSON value"),
    "twice": (odd('1, "id": 2'), "the key 'id' occurs twice"),
    "long number": (odd("1" * 5000), "4300 digits"),
    "deep": (odd("[" * 100_000 + "]" * 100_000), "nest too deeply"),
    "deep objects": (odd('{"}": ' * 100_000 + '"]"' + "}" * 100_000), "nest too deeply"),
    "half a pair": (json.dumps(entry("x", ["\ud800?", "7"])), "turn 1 has characters that are none"),
    "half a pair in the answer": (json.dumps(entry("x", ["?", "7\udfff"])), "turn 2 has characters that are none"),
    "base64 of no picture": (json.dumps(entry("x", ["<image>?", "7"], PHOTO)), "no picture"),
    "address": (json.dumps(entry("x", ["<image>?", "7"], "http://x.org/a.png")), "fetch it first"),
    "unknown address": (json.dumps(entry("x", ["<image>?", "7"], "ftp://x.org/a.png")), "no way to fetch ftp://"),
    "file of an address": (json.dumps(entry("x", ["<image>?", "7"], "file:///missing.png")), "no picture"),
    "long name": (json.dumps(entry("x", ["<image>?", "7"], "x" * 256 + ".png")), "no picture"),
    "long path": (json.dumps(entry("x", ["<image>?", "7"], "x/" * 3000 + ".png")), "no picture"),
    "nul": (json.dumps(entry("x", ["<image>?", "7"], "a\0.png")), "no picture"),
    "half a pair in a name": (json.dumps(entry("x", ["<image>?", "7"], "\ud800.png")), "no picture"),
    "folder": (json.dumps(entry("x", ["<image>?", "7"], ".")), "no picture"),
    "picture that is not a number": (json.dumps(entry("x", ["?", "7"], [float("nan")])), "NaN is no JSON value"),
    "role that is a list": (json.dumps({"conversations": [{"from": ["gpt"], "value": "x"}]}), r"from \['gpt'\]"),
    "long role": (json.dumps({"conversations": [{"from": "x" * 28_000, "value": "x"}]}), "28002 characters"),
}


@pytest.mark.parametrize(("text", "reason"), ODD.values(), ids=ODD)
@pytest.mark.parametrize("shape", ["list", "lines", "object"])
def test_an_odd_record_is_named_and_the_others_are_read(tmp_path, text, reason, shape, capsys):
    good = [json.dumps(each) for each in GOOD]
    records = [good[0], text, good[1]]
    whole = {"list": "[%s]", "lines": "%s", "object": '{"v": 1, "data": [%s]}'}[shape]
    file = tmp_path / "x.json"
    file.write_text(whole % ("\n" if shape == "lines" else ",\n").join(records))
    found, (bad,) = read_records(file)
    assert [record.name for record in found] == ["a", "b"]
    assert bad.where.split(" of ")[0] == ("line 2" if shape == "lines" else "record 2")
    listed = BadRecordList(tmp_path / "bad.jsonl", skip=False)
    with pytest.raises(BadRecords, match=reason) as error:
        listed.start([bad], 3, write=True)
    assert bad.where in str(error.value) and len(str(error.value)) < 1500
    assert listed.count == 1
    BadRecordList(tmp_path / "bad.jsonl", skip=True).start([bad], 3, write=True)
    assert "going on without them" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["\ud800", "a\u2028b\nc", "x" * 28_000, 7, 1.5, True])
def test_odd_ids_are_told_and_listed(tmp_path, name):
    (tmp_path / "x.jsonl").write_text(json.dumps(entry(name, ["which?"])) + "\n" + json.dumps(GOOD[0]))
    _, (bad,) = read_records(tmp_path / "x.jsonl")
    assert bad.name == str(name)
    with pytest.raises(BadRecords, match="line 1 ") as error:
        BadRecordList(tmp_path / "bad.jsonl", skip=False).start([bad], 2, write=True)
    assert len(str(error.value)) < 1000
    (line,) = (tmp_path / "bad.jsonl").read_bytes().split(b"\n")[:-1]
    assert json.loads(line)["id"] == str(name)


@pytest.mark.parametrize("name", [["a"], {"b": 1}, None])
def test_ids_that_are_no_names_are_none(tmp_path, name):
    (tmp_path / "x.jsonl").write_text(json.dumps(entry(name, ["which?"])))
    assert read_records(tmp_path / "x.jsonl")[1][0].name is None


def test_pictures_by_name_by_address_and_in_the_record_itself_are_one(tmp_path):
    picture = draw_scene(0).image
    (tmp_path / "pictures").mkdir()
    picture.save(tmp_path / "pictures" / "a b.png")
    text = base64.b64encode((tmp_path / "pictures" / "a b.png").read_bytes()).decode()
    names = ["a b.png", (tmp_path / "pictures/a b.png").as_uri(), "data:image/png;base64," + text, text]
    file = tmp_path / "x.json"
    file.write_text(json.dumps([entry(str(number), ["<image>?", "7"], name) for number, name in enumerate(names)]))
    records, bad = read_records(file, tmp_path / "pictures")
    assert bad == [] and [record.name for record in records] == ["0", "1", "2", "3"]
    batches = Batches(llava_processor(), BadRecordList(tmp_path / "bad.jsonl", skip=False))
    pixels = batches([(records, number) for number in range(4)])["pixel_values"]
    assert len(pixels) == 4 and all(torch.equal(each, pixels[0]) for each in pixels)


def test_the_reader_serves_other_records_too(tmp_path):
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"question": "?", "notes": [{"a": 1}]}))
    assert list(entries(file, "question")) == [("line 1", {"question": "?", "notes": [{"a": 1}]})]
    assert list(entries(file, "answer")) == [("record 1 of 'notes'", {"a": 1})]
    with pytest.raises(UnreadableFile, match="cannot read"):
        list(entries(tmp_path, "answer"))
