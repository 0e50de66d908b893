"""`seeless sweep` on the command line, and the commands of docs/sweep.md."""

import re
import shlex
from pathlib import Path

import pytest

from published_table import write_table
from seeless.cli.main import main
from seeless.eval.rows import read_rows

PAGE = Path(__file__).parents[2] / "docs" / "sweep.md"
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S) for line in block.splitlines()
]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return (end.value.code or 0, *capsys.readouterr())

    return call


def test_the_commands_of_the_page(run, tmp_path):
    assert len(COMMANDS) == 4
    for line in COMMANDS:
        program, verb, *arguments = shlex.split(line)
        assert program == "seeless"
        code, out, err = run(verb, *arguments, *(["--limit", 2, "--batch-size", 2] if verb == "sweep" else []))
        assert code == 0, err
    rows, broken = read_rows(tmp_path / "small.jsonl")
    assert len(rows) == 7 + 4 and broken == [] and "runs, 0 refused" in out
    assert (tmp_path / "small.png").is_file() and (tmp_path / "loyal.svg").is_file()


def test_it_prints_every_run_and_why_one_did_not(run, tmp_path, monkeypatch):
    scenes = {"strategy": "pool", "task": "seeless_scenes", "task_metric": "accuracy"}
    write_table(tmp_path / "own.parquet", monkeypatch, {**scenes, "value": 87.5}, {**scenes, "tokens": 9})
    options = ("--strategies", "pool,router", "--keep", "36", "--limit", 2, "--tasks", "scenes,scenes_choice")
    code, out, err = run("sweep", *options)
    assert code == 0 and (tmp_path / "results" / "sweep-tiny.jsonl").is_file()
    assert "pool at 36: " in err and "36 visual tokens per layer" in err
    assert "seeless_scenes / seeless_scenes_choice" in out and "not run: router: router has no budget" in out
    (published,) = (line.split() for line in out.splitlines() if line.startswith("pool") and "87.5" in line)
    assert published[:4] == ["pool", "36", "seeless_scenes", "accuracy"]
    assert published[5:] == ["87.5", "part", "of", "the", "questions", "page"]
    row = read_rows(tmp_path / "results" / "sweep-tiny.jsonl")[0][1]
    assert set(row["scores"]) == {"seeless_scenes", "seeless_scenes_choice"}
    assert row["loyalty"]["agreement"]["n"] == row["loyalty"]["kl_n"] == 4
    code, _, err = run("sweep", *options)
    assert code and "--resume" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategies", "fastvv"], "did you mean"),
        (["--strategies", "fastv", "--layr", "3"], "did you mean layer"),
        (["--strategies", "fastv", "--keep", "half"], "shares"),
        (["--strategies", "fastv", "--seed", "x"], "whole numbers"),
        (["--strategies", "fastv", "--tasks", "sceens"], "no task 'sceens'"),
        (["--strategies", ","], "names nothing"),
        (["--model", "no-such-folder"], "no model is called"),
    ],
)
def test_mistakes_are_answered_before_anything_runs(run, tmp_path, options, message):
    code, _, err = run("sweep", "--limit", 2, *options)
    assert code and message in " ".join(err.split()) and not list(tmp_path.rglob("*.jsonl"))


PLUGIN = '''
import seeless as sl


@sl.register("swept")
class Swept(sl.LayerStrategy):
    """Keep the first ones."""

    def score(self, ctx):
        return -ctx.index.float()
'''


def test_methods_of_a_plugin_take_part(run, tmp_path):
    from seeless import registry

    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    try:
        options = ("--strategies", "swept", "--keep", "0.5", "--plugin", file, "--layer", 3, "--limit", 2)
        code, _, err = run("sweep", *options)
    finally:
        registry._strategies.pop("swept", None)
    assert code == 0, err
    row = read_rows(tmp_path / "results" / "sweep-tiny.jsonl")[0][1]
    assert row["fields"]["layer"] == 3 and row["tokens"]["average"] == (3 * 144 + 5 * 72) / 8
