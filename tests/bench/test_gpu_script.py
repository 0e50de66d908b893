"""`scripts/gpu_bench.sh`: what it would run, what it refuses, and one part at a size that takes seconds."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from seeless.bench.architectures import ARCHITECTURES
from seeless.named.strategies import choose

ROOT = Path(__file__).parents[2]
SMALL = ["--rounds", "1", "--layers", "2", "--answer", "2", "--threads", "1", "--strategies", "uniform"]


def script(*arguments, tmp_path):
    command = [str(ROOT / "scripts" / "gpu_bench.sh"), *arguments]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT / "src"),
        "BUILD": str(tmp_path),
    }
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_its_parts_name_what_there_is(tmp_path):
    lines = script("--list", tmp_path=tmp_path).stdout.splitlines()
    parts = [line.partition(":")[0] for line in lines]
    assert parts[:5] == ["llava-1.5", "llava-next", "qwen2.5-vl", "qwen3-vl", "video-llava"]
    for line in lines:
        words = shlex.split(line.partition(":")[2])
        options = dict(zip(words[4::2], words[5::2], strict=True))
        assert options["--arch"] in ARCHITECTURES and options["--dtype"] == "bfloat16"
        for name in options["--strategies"].split(","):
            choose(name)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--devise", "cpu"], "--devise is no option"),
        (["--parts", "llava-9"], "no part is called llava-9"),
        (["--scale"], "needs"),
    ],
)
def test_what_it_refuses(arguments, told, tmp_path):
    done = script(*arguments, tmp_path=tmp_path)
    assert done.returncode == 2 and told in done.stderr


def test_a_part_is_run_once(tmp_path):
    output = tmp_path / "gpu.jsonl"
    asked = ["--device", "cpu", "--scale", "1/64", "--output", str(output)]
    first = script(*asked, "--parts", "llava-1.5-static", "--", *SMALL, "--processor-time", tmp_path=tmp_path)
    assert first.returncode == 0, first.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["strategy"] for row in rows] == ["none", "uniform"]
    assert {(row["model"], row["scale"], row["cache"]) for row in rows} == {("llava-1.5-7b", "1/64", "static")}
    assert all(row["commit"] and row["versions"]["torch"] for row in rows)
    assert output.with_suffix(".png").stat().st_size > 5000
    both = ["--parts", "llava-1.5-static,llava-next", "--minutes", "0"]
    again = script(*asked, *both, "--", *SMALL, "--processor-time", tmp_path=tmp_path)
    assert again.returncode == 1 and "llava-1.5-static: done before" in again.stdout
    assert "llava-next is left" in again.stderr
