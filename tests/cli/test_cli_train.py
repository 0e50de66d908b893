"""`seeless train`: the try-out, a run on data of one's own, and every mistake."""

import json

import pytest
from saved_models import save_llava

from seeless.train import write_scenes


@pytest.fixture
def data(tmp_path):
    return write_scenes(tmp_path / "data", 4)


def test_without_data_it_trains_with_and_without_reduction(seeless, tmp_path):
    for output in ("seeless-train", "seeless-train-2"):
        outcome = seeless("train", "--steps", 2, "--batch", 2, "--layer", "2,4", "--keep", "72,9")
        assert outcome.code == 0, outcome
        none, reduced = (line.split() for line in outcome.out.splitlines() if line.startswith(("none", "pyramiddrop")))
        assert none[0] == "none" and none[-1] == "144" and reduced[-1] == str(round((2 * 144 + 2 * 72 + 4 * 9) / 8))
        assert none[1] == reduced[1] == "2" and "->" in none
        for name in ("none", "pyramiddrop"):
            about = json.loads((tmp_path / output / name / "run.json").read_text())
            assert about["command"].startswith("seeless") and about["records"] == 256
            assert (tmp_path / output / name / "model/model.safetensors").is_file()


def test_data_of_ones_own(seeless, tmp_path, data):
    model = save_llava(tmp_path / "model")
    common = ["train", "--model", model, "--data", data, "--output", "run", "--strategy", "fastv", "--keep", 0.5]
    common += ["--steps", 2, "--batch", 2, "--lora", 2, "--save-every", 1, "--eval-data", data, "--max-length", 160]
    outcome = seeless(*common, "--skip-bad-records", "--bf16", "--checkpointing", "--accumulate", 2)
    assert outcome.code == 0, outcome
    assert "fastv" in outcome.out and "4 records" in outcome.out and "rows lost their end" in outcome.out
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 1, 2, 2] and lines[-1]["eval_loss"] > 0
    assert (tmp_path / "run/model/adapter_model.safetensors").is_file()
    assert json.loads((tmp_path / "run/run.json").read_text())["settings"]["lora"] == 2
    again = seeless(*common)
    assert again.code == 1 and "holds a run already" in again.err


def test_bad_records(seeless, tmp_path, data):
    records = json.loads(data.read_text())
    records[1]["image"] = "missing.png"
    records[2]["conversations"][0]["value"] = "how many digits?"
    data.write_text(json.dumps(records))
    refused = seeless("train", "--data", data, "--steps", 1, "--output", "run")
    assert refused.code == 8 and refused.out == "" and refused.err.count("\n") == 1
    for part in (
        "2 of 4 records",
        "record 2 (scene-1): no picture",
        "record 3",
        "bad_records.jsonl",
        "--skip-bad-records",
    ):
        assert part in refused.err
    assert len((tmp_path / "run/bad_records.jsonl").read_text().splitlines()) == 2
    outcome = seeless("train", "--data", data, "--steps", 1, "--output", "run", "--skip-bad-records")
    assert outcome.code == 0 and "going on without them" in outcome.err
    assert "2 records; 2 could not be trained on, see bad_records.jsonl" in outcome.out
    assert json.loads((tmp_path / "run/run.json").read_text())["outcome"]["bad_records"] == 2


def test_a_guest_trains(seeless, tmp_path, data):
    arguments = ["--strategy", "vtr:fastv", "--prune_layer", 2, "--keep_tokens", 36]
    outcome = seeless("train", "--data", data, "--steps", 1, "--output", "run", *arguments)
    assert outcome.code == 0, outcome
    row = next(line.split() for line in outcome.out.splitlines() if line.startswith("vtr:fastv"))
    assert row[-1] == str((2 * 144 + 6 * 36) // 8)
    assert json.loads((tmp_path / "run/run.json").read_text())["strategy"]["strategy"] == "fastv"


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["--strategy", "fastvv"], 2, ["did you mean fastv"]),
        (["--strategy", "fastv", "--layer", 99], 2, ["8 layers"]),
        (["--strategy", "fastv", "--weight", 1], 2, ["no field 'weight'"]),
        (["--keep", 0.5], 2, ["--keep is a strategy's field", "name the --strategy"]),
        (["--freeze", "tower,projector,decoder"], 2, ["nothing to train"]),
        (["--freeze", "head"], 2, ["--freeze head"]),
        (["--steps", 1, "--epochs", 1], 2, ["exclude each other"]),
        (["--resume"], 1, ["has no checkpoint"]),
        (["--model", "./missing"], 6, ["no such folder"]),
        (["--deepspeed", "x.json"], 3, ["pip install deepspeed"]),
        (["--image-folder", "."], 8, ["no picture"]),
        (["--eval-data", "missing.json"], 8, ["missing.json"]),
        (["--max-length", 20], 8, ["no answer within the first 20 tokens"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) and str(value[0]).startswith("--") else "",
)
def test_mistakes(seeless, data, arguments, code, parts):
    outcome = seeless("train", "--data", data, *arguments)
    assert outcome.code == code, outcome
    for part in parts:
        assert part in " ".join(outcome.err.split())


@pytest.mark.parametrize("arguments", [["--model", "x/y"], ["--resume"]], ids=" ".join)
def test_what_needs_data(seeless, arguments):
    outcome = seeless("train", *arguments)
    assert outcome.code == 2 and "--data" in outcome.err
