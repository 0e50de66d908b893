"""`seeless eval` on questions about videos: real files, stopped runs, missing and broken videos, chunks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchvision_shim import TORCHVISION, shim_path
from video_files import write_video, write_videos

pytest.importorskip("av")
TESTS = Path(__file__).parents[1]


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_answers_and_a_stopped_run(seeless, tmp_path):
    call = ["eval", "--model", "tiny", *write_videos(tmp_path), "--frames", 2, "--output", "out"]
    fastv = [*call, "--method", "fastv", "--keep-tokens", 64]
    planned = seeless(*fastv, "--dry-run")
    assert planned.code == 0 and "would ask 4 questions" in planned.out and "all videos are there" in planned.out
    assert not (tmp_path / "out").exists()
    outcome = seeless(*fastv)
    assert outcome.code == 0, outcome.err
    assert "4 of 4" in outcome.out and "normalised match" in outcome.out
    whole = lines(tmp_path / "out/predictions.jsonl")
    assert [set(line) for line in whole] == [{"id", "question", "answer", "pred"}] * 4
    assert [line["id"] for line in whole] == ["q0", "q1", "q2", "q3"] and all(line["pred"].isdigit() for line in whole)

    kept = (tmp_path / "out/predictions.jsonl").read_text()
    (tmp_path / "out/predictions.jsonl").write_text(kept[:-15])  # stopped while it wrote
    again = seeless(*fastv, "--json")
    assert again.code == 0 and "was cut off" in again.err and "3 of 4 questions are answered already" in again.err
    assert (tmp_path / "out/predictions.jsonl").read_text() == kept
    score = json.loads(again.out)["scores"]["all"]
    right = sum(line["pred"] == line["answer"] for line in whole)
    assert score["answered"] == 4 and score["exact"] == score["normalised"] == right

    for other in (["--method", "fastv", "--keep-tokens", 60], ["--strategy", "fastv", "--keep", 64]):
        refused = seeless(*call, *other)
        assert refused.code == 2 and "was made with" in refused.err and "another --output" in refused.err
    refused = seeless(*fastv, "--frames", 3)
    assert refused.code == 2 and "frames=2, not 3" in refused.err


def test_missing_and_broken_videos_are_named_and_counted(seeless, tmp_path):
    flags = write_videos(tmp_path, more=["gone", "broken"])
    (tmp_path / "videos/broken.mp4").write_bytes((tmp_path / "videos/a.mp4").read_bytes()[:300])
    call = ["eval", "--model", "tiny", *flags, "--frames", 1, "--output", "out", "--strategy", "fastv", "--keep", 0.5]
    outcome = seeless(*call)
    assert outcome.code == 1 and "4 of 6" in outcome.out
    assert "2 of 6 questions have no answer" in outcome.err.splitlines()[-1] and "(gone, broken)" in outcome.err
    errors = lines(tmp_path / "out/predictions.errors.jsonl")
    assert [(line["id"], line["video"]) for line in errors] == [("q4", "gone"), ("q5", "broken")]
    assert "no video gone" in errors[0]["error"] and "cannot read" in errors[1]["error"]
    for name in ("gone", "broken"):
        write_video(tmp_path / f"videos/{name}.mp4")
    repaired = seeless(*call)
    assert repaired.code == 0 and "6 of 6" in repaired.out
    assert not (tmp_path / "out/predictions.errors.jsonl").exists()


def test_a_command_line_of_priortr_s_script(seeless, tmp_path):
    """Flag by flag as its script for videos takes them; what is left out has the script's defaults."""
    write_videos(tmp_path)
    script = "--model_path tiny --cache_dir hub --video_dir videos --gt_file_question q.json --gt_file_answers a.json"
    script = f"{script} --max_new_tokens 2 --output_dir out --num_samples 2 --output_name first".split()
    flags = "--vtr_enabled --vtr_strategy fastv --vtr_prune_layer 2 --vtr_keep_tokens 30 --vtr_head_aggregation max"
    outcome = seeless("eval", *script, "--frames", 1, *flags.split(), "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["arguments"] == {
        "strategy": "fastv",
        "keep_tokens": "30",
        "prune_layer": "2",
        "query_aggregation": "question",
        "head_aggregation": "max",
    }
    assert found["scores"]["all"]["questions"] == 2 and len(lines(tmp_path / "out/first/predictions.jsonl")) == 2
    plain = seeless("eval", *script[:-1], "second", "--frames", 1, "--vtr_enabled", "--json")
    assert json.loads(plain.out)["arguments"] == {
        "strategy": "priortr_2f",
        "keep_tokens": "194",
        "prune_layer": "3",
        "query_aggregation": "question",
    }
    untouched = seeless("eval", *script[:-1], "third", "--frames", 1, "--json")
    assert json.loads(untouched.out)["arguments"] == {"strategy": "none"}


def test_chunks(seeless, tmp_path):
    call = ["eval", "--model", "tiny", *write_videos(tmp_path), "--frames", 1, "--output", "out", "--num-chunks", 2]
    for index, so_far in ((0, "2 of 3"), (1, "3 of 3")):
        outcome = seeless(*call, "--chunk-idx", index, "--num-samples", 3)
        assert outcome.code == 0 and f"chunk {index}" in outcome.out and so_far in outcome.out
    names = ["predictions_0_of_2.jsonl", "predictions_1_of_2.jsonl"]
    assert [len(lines(tmp_path / "out" / name)) for name in names] == [2, 1]


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--num-chunks", 2, "--chunk-idx", 2], "from 0 to 1"),
        (["--num-processes", 2], "one command per GPU"),
        (["--param", "dtype=float16"], "--param dtype"),
        (["--video-dir", "missing"], "no folder"),
        (["--gt-answers", "missing.json"], "cannot read missing.json"),
    ],
)
def test_impossible_video_requests(seeless, tmp_path, more, part):
    outcome = seeless("eval", "--model", "tiny", *write_videos(tmp_path), *more)
    assert outcome.code == 2 and part in outcome.err and not (tmp_path / "eval_results").exists()


@pytest.mark.skipif(not TORCHVISION.is_dir(), reason="needs torchvision, in a folder of its own")
def test_a_model_that_takes_videos(seeless, tmp_path):
    flags = [*map(str, write_videos(tmp_path)), "--num-samples", "2", "--strategy", "fastv", "--keep", "0.25"]
    path = [*shim_path(tmp_path / "shim"), os.environ.get("PYTHONPATH", "")]
    made = subprocess.run(
        [sys.executable, TESTS / "eval/saved_video_llava.py", "model", *flags, "--output", "out", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["scores"]["all"]["answered"] == 2
    assert len(lines(tmp_path / "out/predictions.jsonl")) == 2
    without = seeless("eval", "--model", "model", *flags, "--output", "other")
    assert without.code == 3 and "pip install torchvision" in without.err
