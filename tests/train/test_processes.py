"""Two processes under `accelerate launch` on this CPU (gloo)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from one_of_two import train_one

from seeless.tiny import draw_scene
from training_data import entry, llava_processor, small_model, write_data

ROOT = Path(__file__).parents[2]
LAUNCH = "--multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0 --mixed_precision no --dynamo_backend no"


def launch(*command):
    paths = [str(ROOT / "src"), str(ROOT / "tests"), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    start = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH.split()]
    return subprocess.run([*start, *map(str, command)], env=environment, capture_output=True, text=True, check=False)


def unequal(folder):
    """Records of which, shuffled, one process often has a picture when the other has none; lengths differ."""
    folder.mkdir()
    draw_scene(0, held_out=False).image.save(folder / "0.png")
    records = []
    for number in range(12):
        if number % 2:
            records.append(entry(f"text {number}", ["what colour is the 7?", "red"]))
        else:
            turns = ["<image>" * (1 + number // 2 % 2) + "how many digits?", "there are 3 digits"] + ["which?", "7"] * (
                number // 2
            )
            records.append(entry(f"pictures {number}", turns, ["0.png"] * (1 + number // 2 % 2)))
    file = folder / "data.json"
    file.write_text(json.dumps(records))
    return file


RUNS = {"tower frozen": ("tower", "no"), "all trained": ("", "yes")}  # what is frozen, checkpointing


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All of them in one launch, each in a folder of its own, and the data."""
    folder = tmp_path_factory.mktemp("runs")
    data = unequal(folder / "data")
    asked = [word for name, choices in RUNS.items() for word in (folder / name, *choices)]
    done = launch(Path(__file__).with_name("one_of_two.py"), data, *asked)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, data


@pytest.mark.parametrize("name", RUNS)
def test_both_end_with_the_same_weights(runs, tmp_path, name):
    folder, data = runs
    output = folder / name
    first, second = (torch.load(output / f"rank{rank}.pt") for rank in (0, 1))
    assert first["weights"].keys() == second["weights"].keys()
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), key
    start = small_model(seed=0).state_dict()
    assert any(not torch.equal(value, start[key]) for key, value in first["weights"].items() if "projector" in key)
    assert [line["step"] for line in first["lines"]] == [1, 2, 3, 4, 5, 5] and second["lines"] == []
    assert json.loads((output / "run.json").read_text())["processes"] == 2
    _, outcome = train_one(data, tmp_path / "alone", *RUNS[name], seed=0, batch=2)
    # Later, AdamW moves the projector by its momentum where a blank picture stands for none, and one process does not.
    for together, alone in zip(first["lines"][:3], outcome.lines[:3], strict=True):  # every answer token counts once
        for key in ("loss", "grad_norm", "lr"):
            assert together[key] == pytest.approx(alone[key], rel=1e-4), key
    assert first["lines"][-1]["eval_loss"] > 0


def test_weights_in_pieces():
    """PyramidDrop reads a layer that FSDP has just gathered, the others what layers showed while they ran."""
    done = launch(Path(__file__).with_name("sharded_pair.py"))
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_command_line(tmp_path):
    data = write_data(tmp_path / "data")
    with data.with_name("more.jsonl").open("w") as file:
        for record in json.loads(data.read_text()):
            file.write(json.dumps(record) + "\n")
        file.write("broken\n")
    small_model().save_pretrained(tmp_path / "model")
    llava_processor().save_pretrained(tmp_path / "model")
    command = ["-m", "seeless.cli.main", "train", "--model", tmp_path / "model", "--data", data.with_name("more.jsonl")]
    command += ["--output", tmp_path / "run", "--steps", 2, "--batch", 2, "--lora", 2, "--strategy", "pyramiddrop"]
    refused = launch(*command)
    assert refused.returncode != 0 and refused.stderr.count("error: 1 of 13 records cannot be trained on") == 1
    done = launch(*command, "--skip-bad-records")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("pyramiddrop") == 1 and done.stderr.count("going on without them") == 1
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert len((tmp_path / "run/bad_records.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "run/model/adapter_model.safetensors").is_file()
