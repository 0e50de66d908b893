"""Sweeps with runs that fail, files that others hold, disks that fill up, and requests that are none."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from heeding import heed
from test_sweep_command import run  # noqa: F401  (a fixture)

import seeless.tiny
from seeless.eval.errors import InvalidRequest
from seeless.eval.loyalty import Answers, save_answers
from seeless.eval.rows import read_rows
from seeless.eval.sweep import Asked, plan, sweep
from seeless.eval.tasknames import check_cache
from seeless.jsonl import append_lines, read_lines
from seeless.outputs import FileInUse, UnwritableFile, claimed

ASKED = Asked("tiny", ["seeless_scenes"], limit=2, batch_size=2)
PLUGIN = '''
import seeless as sl

LEFT = {left}


@sl.register("moody")
class Moody(sl.LayerStrategy):
    """Fail, if there is a file that says so."""

    def score(self, ctx):
        import os
        if os.path.exists("{switch}"):
            raise KeyError("no such weight")
        return ctx.index.float()
'''


@pytest.fixture(scope="module")
def tiny():
    return seeless.tiny.load_tiny()


@pytest.fixture
def moody(tmp_path):
    from seeless import registry

    (tmp_path / "switch").touch()
    file = tmp_path / "moody.py"
    file.write_text(PLUGIN.format(left=0, switch=tmp_path / "switch"))
    yield file
    registry._strategies.pop("moody", None)


def test_a_run_that_fails_is_a_row_and_the_others_go_on(run, moody, tmp_path):  # noqa: F811
    options = ("--strategies", "pool,moody,uniform", "--keep", "0.5", "--plugin", moody, "--layer", 3, "--limit", 2)
    code, out, err = run("sweep", *options)
    rows, broken = read_rows(tmp_path / "results/sweep-tiny.jsonl")
    assert code == 1 and broken == []
    assert [(row["strategy"], "failed" in row) for row in rows] == [
        *(("none", False), ("pool", False)),
        *(("moody", True), ("uniform", False)),
    ]
    assert rows[2]["failed"].endswith("before layer 3: KeyError: 'no such weight'")
    assert not {"scores", "refused"} & set(rows[2])
    assert "moody at 0.5: failed: /" in err and "failed: moody: /" in out
    assert "1 of 4 runs failed, see above; --resume tries them again" in err.splitlines()[-1]

    (tmp_path / "switch").unlink()
    code, out, err = run("sweep", *options, "--resume")
    again, _ = read_rows(tmp_path / "results/sweep-tiny.jsonl")
    assert code == 0, err
    assert again[:4] == rows and [row["strategy"] for row in again[4:]] == ["moody"] and "scores" in again[4]
    assert "1 new rows, 4 old ones" in out and "failed" not in out


def test_a_model_that_cannot_answer_at_all_ends_the_sweep(tiny, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no model")

    monkeypatch.setattr("seeless.eval.sweep.evaluate", fail)
    with pytest.raises(RuntimeError, match="no model"):
        sweep(*tiny, plan(["pool"], [0.5]), ASKED, tmp_path / "sweep.jsonl")
    assert not (tmp_path / "sweep.jsonl").exists()


def test_questions_are_counted(tiny, tmp_path):
    told = []
    asked = Asked("tiny", ["seeless_scenes", "seeless_scenes_choice"], limit=5, batch_size=2)
    sweep(
        *tiny,
        plan(["pool"], [0.5]),
        asked,
        tmp_path / "sweep.jsonl",
        starts=lambda planned, number, total: told.append(planned.label),
        answered=lambda done, known: told.append((done, known)),
    )
    one_run = [(2, 5), (4, 5), (5, 5), (7, 10), (9, 10), (10, 10)]
    assert told == ["none", *one_run, "pool at 0.5", *one_run]


def test_the_bar_counts_questions_of_all_runs():
    from seeless.cli.sweep import Questions

    questions, seen = Questions(), []
    for number in range(3):
        questions.start(number, 3)
        seen.append((questions.done, questions.total))
        for done in (2, 4):
            questions.answer(done, 4)
            seen.append((questions.done, questions.total))
    assert seen == [(0, None), (2, 12), (4, 12), (4, 12), (6, 12), (8, 12), (8, 12), (10, 12), (12, 12)]


def test_a_second_sweep_on_one_file_is_refused(tiny, tmp_path):
    file = tmp_path / "sweep.jsonl"
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold():
        with claimed(file):
            held.set()
            time.sleep(600)

    holder = context.Process(target=hold)
    holder.start()
    assert held.wait(60)
    with pytest.raises(FileInUse, match=r"another process writes to .*sweep\.jsonl"):
        sweep(*tiny, plan(["pool"], [0.5]), ASKED, file)
    holder.kill()
    holder.join()
    assert len(sweep(*tiny, plan(["pool"], [0.5]), ASKED, file).new) == 2


def within(limit, told, work, *arguments):
    """What is said where files may have so many bytes at most, as on a disk that is full."""

    def child():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            work(*arguments)
        except UnwritableFile as error:
            told.write_text(str(error)[:limit])

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    return told.read_text()


def test_a_full_disk_ends_the_sweep_and_leaves_whole_rows(tmp_path, tiny):
    file = tmp_path / "sweep.jsonl"
    sweep(*tiny, plan([], [0.5]), ASKED, file)
    before = file.read_bytes()
    runs = plan(["pool"], [0.5])
    said = within(len(before) + 300, tmp_path / "told", lambda: sweep(*tiny, runs, ASKED, file, resume=True))
    assert said == f"cannot write {file}: File too large" and file.read_bytes() == before


def test_a_full_disk_leaves_the_kept_answers_as_they_were(tmp_path):
    file = tmp_path / "x.reference.safetensors"
    save_answers(Answers({"t/0": "a"}, {}), file, {})
    before = file.read_bytes()
    many = Answers({"t/0": "b"}, {"t/0": torch.zeros(1000)})
    said = within(1000, tmp_path / "told", save_answers, many, file, {})
    assert said.startswith(f"cannot write {file}: ") and "File too large" in said
    assert file.read_bytes() == before and {each.name for each in tmp_path.iterdir()} == {file.name, "told"}


def test_texts_with_other_line_ends_come_back(tmp_path):
    rows = [{"a": "x\u2028y\u2029z\x85"}, {"b": 1}]
    append_lines(tmp_path / "x.jsonl", *rows)
    assert [row for _, row in read_lines(tmp_path / "x.jsonl")] == rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "inf"], "--limit inf is not possible; give a whole number"),
        (["--limit", "nan"], "--limit nan"),
        (["--limit", "-1"], "--limit -1"),
        (["--limit", "0"], "--limit 0"),
        (["--limit", "2.5"], "--limit 2.5"),
        (["--limit", "many"], "--limit many"),
        (["--keep", "nan"], "--keep nan"),
        (["--keep", "inf"], "--keep inf"),
        (["--keep", "0.5,nan"], "--keep nan"),
        (["--keep", "5.0"], "--keep 5.0"),
        (["--keep", "0"], "--keep 0"),
        (["--keep", "-3"], "--keep -3"),
        (["--seed", "100000000000000000000"], "--seed 100000000000000000000"),
        (["--seed", "4294967296"], "--seed 4294967296"),
        (["--seed", "-1"], "--seed -1"),
        (["--include-path", "missing"], "--include-path missing is no folder"),
        (["--tasks", "scene"], "did you mean scenes or scenes_choice?"),
        (["--output", "file/x.jsonl"], "cannot write to file: it is no folder"),
        (["--output", "folder.jsonl"], "cannot write folder.jsonl: it is no file"),
        (["--output", "/dev/full"], "cannot write /dev/full: it is no file"),
        (["--output", "x" * 300], "File name too long"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_requests_that_are_none_are_refused_before_a_model_is_loaded(run, tmp_path, monkeypatch, options, message):  # noqa: F811
    def load(*arguments, **options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("seeless.named.checkpoints.load_embedded", load)
    (tmp_path / "file").touch()
    (tmp_path / "folder.jsonl").mkdir()
    code, out, err = run("sweep", "--strategies", "pool", *options)
    told = " ".join(err.replace("│", " ").split())
    assert code in (1, 2) and out == "" and message in told, err
    assert not list(tmp_path.rglob("sweep*.jsonl"))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    command = [sys.executable, "-m", "seeless.cli.main", "sweep", "--strategies", "pool", "--limit", "2"]
    own["HOME"] = "/dev/null/home"
    done = subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: cannot write /dev/null/home") and "HF_HOME" in done.stderr
    monkeypatch.setenv("HF_DATASETS_CACHE", "/dev/null/cache")
    with pytest.raises(UnwritableFile, match="cannot write /dev/null/cache"):
        check_cache()


def test_ctrl_c_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "seeless.cli.main", "sweep", "--strategies", "pool,uniform", "--output", "x.jsonl"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed)
    ends = time.monotonic() + 120
    while time.monotonic() < ends and not (tmp_path / "x.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == ""
    assert err.splitlines()[-1] == (
        "stopped; what is done is in x.jsonl, and the same command with --resume goes on from there"
    )


def test_a_file_with_rows_is_still_only_added_to_when_told(tiny, tmp_path):
    append_lines(tmp_path / "x.jsonl", {"model": "tiny"})
    with pytest.raises(InvalidRequest, match="--resume"), claimed(tmp_path / "y.jsonl"):
        sweep(*tiny, plan(["pool"], [0.5]), ASKED, tmp_path / "x.jsonl")
    assert json.loads((tmp_path / "x.jsonl").read_text()) == {"model": "tiny"}
