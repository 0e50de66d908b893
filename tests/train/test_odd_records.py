"""Records that only the processor or the chat template refuses: named, and skipped where that is asked for."""

import json

import pytest
import torch
from PIL import Image
from refusing import Refusing

from seeless.train import BadRecordList, BadRecords, Batches, Settings, finetune, read_records
from training_data import CHATML, PROCESSORS, entry, llava_processor, small_model, write_data


@pytest.fixture
def records(tmp_path):
    """Eight, of which the third has a picture of 1 x 300 pixels, which Qwen's processor refuses."""
    file = write_data(tmp_path, 8)
    Image.new("RGB", (1, 300)).save(tmp_path / "2.png")
    data = json.loads(file.read_text())
    data[6]["image"] = "0.png"
    file.write_text(json.dumps(data))
    return read_records(file)[0]


def batches(folder, skip, processor=None, **options):
    return Batches(processor or PROCESSORS["qwen"](), BadRecordList(folder / "bad.jsonl", skip), **options)


def test_a_picture_that_the_processor_refuses_is_named(tmp_path, records):
    reason = r"data\.json, record 3 \(one turn 2\): the processor refuses it: ValueError: .*aspect ratio.*--skip-bad"
    with pytest.raises(BadRecords, match=reason):
        batches(tmp_path, skip=False)([(records, number) for number in range(4)])


@pytest.mark.parametrize("always_a_picture", [False, True])
def test_or_skipped(tmp_path, records, always_a_picture):
    made = batches(tmp_path, True, always_a_picture=always_a_picture)
    batch = made([(records, number) for number in (0, 2, 1)])
    wanted = made([(records, number) for number in (0, 3, 1)])  # the next record takes its place
    assert all(torch.equal(batch[name], wanted[name]) for name in batch)
    (line,) = map(json.loads, (tmp_path / "bad.jsonl").read_text().split("\n")[:-1])
    assert line["where"] == "record 3" and "aspect ratio" in line["reason"] and line["found"] == "while training"


def test_a_batch_that_loses_its_only_picture_gets_a_blank_one(tmp_path, records):
    made = batches(tmp_path, True, always_a_picture=True)
    text = [record for record in records if not record.images]
    batch = made([([records[2], *text], 0)])
    assert batch["pixel_values"].numel() and batch["input_ids"].shape[0] == 2


def test_a_conversation_that_the_template_refuses(tmp_path):
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + CHATML
    system = entry("s", ["which?", "7"])
    system["conversations"].insert(0, {"from": "system", "value": "be brief"})
    (tmp_path / "x.json").write_text(json.dumps([system, entry("a", ["which?", "7"])]))
    records, _ = read_records(tmp_path / "x.json")
    with pytest.raises(BadRecords, match=r"record 1 \(s\): cannot be put into the chat format: no system turns"):
        batches(tmp_path, False, llava_processor(template))([(records, 0)])
    made = batches(tmp_path, True, llava_processor(template))
    assert torch.equal(made([(records, 0)])["input_ids"], made([(records, 1)])["input_ids"])


def test_what_no_record_alone_is_to_blame_for_is_raised_as_it_is(tmp_path, records):
    made = batches(tmp_path, True)
    process = made._process

    def together(samples):
        if len(samples) > 1:
            raise RuntimeError("out of memory")
        return process(samples)

    made._process = together
    with pytest.raises(RuntimeError, match="out of memory"):
        made([(records, 0), (records, 1)])
    assert not (tmp_path / "bad.jsonl").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run(tmp_path, records, workers):
    settings = {"steps": 8, "batch": 2, "workers": workers}
    with pytest.raises(BadRecords) as error:
        finetune(small_model(), Refusing(llava_processor()), records, Settings(tmp_path / "a", **settings))
    assert str(error.value).startswith(
        f"cannot train on {tmp_path / 'data.json'}, record 3 (one turn 2): the processor"
    )
    assert "Traceback" not in str(error.value)
    outcome = finetune(
        small_model(), Refusing(llava_processor()), records, Settings(tmp_path / "b", skip_bad_records=True, **settings)
    )
    assert outcome.bad == 1 and len(outcome.lines) == 8
