"""Batches: padding, several pictures and none, records that turn out bad, rows that are too long."""

import json

import pytest
import torch

from seeless.train import BadRecordList, BadRecords, Batches, read_records
from seeless.train.chat import IGNORED
from training_data import PROCESSORS, entry, llava_processor, write_data


def collator(folder, skip=False, processor=None, **options):
    return Batches(processor or llava_processor(), BadRecordList(folder / "bad.jsonl", skip), **options)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mixed_batch_is_its_rows(tmp_path, side):
    records, _ = read_records(write_data(tmp_path))
    processor = llava_processor()
    processor.tokenizer.padding_side = side
    batches = collator(tmp_path, processor=processor)
    batch = batches([(records, number) for number in range(4)])
    assert batch["pixel_values"].shape == (4, 3, 96, 96)  # 1 + 0 + 1 + 2
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    mask = batch["attention_mask"].bool()
    assert bool(mask[:, 0 if side == "right" else -1].all()) and not bool(mask.all())
    assert bool((batch["labels"][~mask] == IGNORED).all())
    pictures = []
    for number in range(4):
        alone = batches([(records, number)])
        for name in ("input_ids", "labels"):
            assert batch[name][number][mask[number]].tolist() == alone[name][0].tolist()
        pictures += list(alone.get("pixel_values", []))
    assert torch.equal(torch.stack(pictures), batch["pixel_values"])
    assert "pixel_values" not in batches([(records, 1)])


@pytest.mark.parametrize("name", [name for name in PROCESSORS if name != "embedded"])
def test_other_processors(tmp_path, name):
    records, _ = read_records(write_data(tmp_path))
    batches = collator(tmp_path, processor=PROCESSORS[name](), always_a_picture=True)
    batch = batches([(records, number) for number in range(4)])
    visual = (batch["input_ids"] == batches.image_id).sum(1).tolist()
    assert visual[1] == 0 and visual[3] > visual[2] > 0
    answers = [batches.processor.tokenizer.decode(row[row != IGNORED]) for row in batch["labels"]]
    for answer, text in zip(
        answers, ("there are 3 digits", "the colour is red", "4", "there are 4 digits"), strict=True
    ):
        assert text in answer
    assert "pixel_values" in batches([(records, 1)])


def test_a_blank_picture_adds_a_row_without_labels(tmp_path):
    records, _ = read_records(write_data(tmp_path))
    batches = collator(tmp_path, always_a_picture=True)
    plain, padded = collator(tmp_path)([(records, 1)]), batches([(records, 1), (records, 5)])
    assert padded["input_ids"].shape[0] == 3 and padded["pixel_values"].shape[0] == 1
    assert bool((padded["labels"][2] == IGNORED).all()) and bool((padded["labels"][:2] != IGNORED).any(1).all())
    assert padded["labels"][0][padded["attention_mask"][0].bool()].tolist() == plain["labels"][0].tolist()
    assert batches([(records, 0), (records, 1)])["input_ids"].shape[0] == 2


def test_an_unreadable_picture(tmp_path):
    records, _ = read_records(write_data(tmp_path, 8))
    (tmp_path / "2.png").write_text("no picture")
    with pytest.raises(BadRecords, match=r"record 3 \(one turn 2\): cannot read the picture.*--skip-bad-records"):
        collator(tmp_path)([(records, 2)])
    (tmp_path / "bad.jsonl").unlink()
    batches = collator(tmp_path, skip=True)
    for _ in range(2):  # the next record takes its place; it is reported once
        batch, wanted = batches([(records, 2), (records, 6)]), batches([(records, 3), (records, 7)])
        assert torch.equal(batch["input_ids"], wanted["input_ids"])
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [line["where"] for line in lines] == ["record 3", "record 7"]
    assert {line["found"] for line in lines} == {"while training"}


def test_nothing_left(tmp_path):
    records, _ = read_records(write_data(tmp_path))
    (tmp_path / "2.png").write_text("no picture")
    with pytest.raises(BadRecords, match="not one of 1 records"):
        collator(tmp_path, skip=True)([(records[2:3], 0)])


@pytest.mark.parametrize("side", ["left", "right"])
def test_long_rows_lose_their_end(tmp_path, side):
    records, _ = read_records(write_data(tmp_path))
    processor = llava_processor()
    processor.tokenizer.padding_side = side
    long = collator(tmp_path, processor=processor)([(records, 0), (records, 1)])
    batches = collator(tmp_path, processor=processor, max_length=160)
    batch = batches([(records, 0), (records, 1)])
    assert long["input_ids"].shape[1] > 160 and batch["input_ids"].shape == (2, 160) and batches.cut == 1
    first = long["input_ids"][0][:160]
    assert torch.equal(batch["input_ids"][0], first)
    for name in ("input_ids", "labels"):
        kept = batch[name][1][batch["attention_mask"][1].bool()]
        assert torch.equal(kept, long[name][1][long["attention_mask"][1].bool()])
    padding = ~batch["attention_mask"][1].bool()
    assert bool((batch["labels"][1][padding] == IGNORED).all()) and bool((batch["input_ids"][1][padding] == 0).all())
    assert padding[0 if side == "left" else -1]


def test_rows_that_cannot_be_cut_are_bad(tmp_path):
    records, _ = read_records(write_data(tmp_path))
    with pytest.raises(BadRecords, match=r"record 4 .*no answer within the first 160 tokens"):
        collator(tmp_path, max_length=160)([(records, 3)])
    batches = collator(tmp_path, skip=True, max_length=160)
    replaced, wanted = batches([(records, 3)]), batches([(records, 4)])
    assert torch.equal(replaced["input_ids"], wanted["input_ids"])
    with pytest.raises(BadRecords, match="a picture alone takes more than --max-length 20 tokens"):
        collator(tmp_path, skip=True, max_length=20, always_a_picture=True)([(records, 1)])


def test_the_last_record_is_followed_by_the_first(tmp_path):
    file = tmp_path / "x.json"
    write_data(tmp_path)
    (tmp_path / "broken.png").write_text("no picture")
    good, broken = entry("a", ["which?", "7"]), entry("b", ["<image>which?", "7"], "broken.png")
    file.write_text(json.dumps([good, broken]))
    records, _ = read_records(file)
    batches = collator(tmp_path, skip=True)
    assert torch.equal(batches([(records, 1)])["input_ids"], batches([(records, 0)])["input_ids"])
