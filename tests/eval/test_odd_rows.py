"""Result files that somebody edited, and files that are none: every plot ends in a picture or in a sentence."""

import json
from pathlib import Path

import pytest
from test_plots import REFUSED, ROWS

from seeless.cli.main import main
from seeless.eval.errors import InvalidRequest
from seeless.eval.rows import check_rows, named, read_rows

FIELDS = ("model", "weights", "strategy", "fields", "keep", "seed", "tasks", "limit", "scores", "loyalty", "tokens")
ODD = (None, True, "x", 3, -1.5, [], [[]], {}, {"t": None}, {"t": {}}, {"value": "x"}, float("nan"), 10**400, "\ud800")


@pytest.fixture
def plot(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["plot", *map(str, arguments)])
        return (end.value.code or 0, *capsys.readouterr())

    return call


def write(file, *rows):
    file.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return file


@pytest.mark.parametrize("name", [*FIELDS, "flops"])
def test_a_field_of_another_type_is_a_broken_line_or_does_no_harm(tmp_path, plot, name):
    """Whatever stands there: the line is named, or it is drawn."""
    file = write(tmp_path / "rows.jsonl", ROWS[0], *({**ROWS[3], name: value} for value in ODD))
    code, out, err = plot(file)
    assert code == 0 and "runs, 0 refused" in out, err
    assert err == "" or all(line.startswith(str(file)) for line in err.splitlines())


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (["keep"], "half", "keep is 'half', not a number"),
        (["keep"], True, "keep is True, not a number"),
        (["seed"], 0.5, "seed is 0.5, not a whole number"),
        (["strategy"], None, "strategy is None, not text"),
        (["tasks"], "t", "tasks is 't', not a list"),
        (["scores"], [], "scores is [], not an object"),
        (["scores", "t"], 0.5, "scores.t is 0.5, not an object"),
        (["scores", "t", "accuracy"], 0.5, "scores.t.accuracy is 0.5, not an object"),
        (["scores", "t", "accuracy", "value"], "0.5", "scores.t.accuracy.value is '0.5', not a number"),
        (["scores", "t", "accuracy", "low"], [1], "scores.t.accuracy.low is [1], not a number"),
        (["scores", "t"], {}, "scores.t is empty"),
        (["loyalty", "agreement"], 1, "loyalty.agreement is 1, not an object"),
        (["loyalty", "kl"], "0", "loyalty.kl is '0', not a number"),
        (["tokens"], {}, "tokens.average is missing"),
        (["flops", "share"], 10**400, "flops.share is 1000"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, path, value, reason):
    row = json.loads(json.dumps(ROWS[3]))
    inner = row
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    rows, (broken,) = read_rows(write(tmp_path / "rows.jsonl", ROWS[0], row))
    assert (
        rows == [ROWS[0]] and reason in str(broken) and str(broken).endswith("line 2: " + broken.reason + "; left out")
    )


def test_refused_and_failed_rows_say_why_in_text(tmp_path):
    rows = [{**REFUSED, "refused": 3}, {**ROWS[3], "failed": ["x"]}, {**ROWS[3], "failed": "KeyError: 'x'"}]
    found, broken = read_rows(write(tmp_path / "rows.jsonl", *rows))
    assert found == rows[2:] and "refused is 3, not text" in str(broken[0]) and "failed is ['x']" in str(broken[1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no row of a sweep is there"),
        (b"\x89PNG\r\n\x1a\n" + bytes(3000), "no row of a sweep is there"),
        (b"\xff" * 200_000, "no row of a sweep is there"),
        (b'{"a": ' * 100_000, "no row of a sweep is there"),
        (b"[" + b"1" * 5000 + b"]", "no row of a sweep is there"),
        (b'[{"model": "tiny"}]', "no row of a sweep is there"),
        (json.dumps(REFUSED).encode(), "none of 1 runs has scores, all were refused or failed"),
        (json.dumps({**ROWS[0], "tokens": {"average": float("inf")}}).encode(), "no run has a finite score"),
    ],
    ids=range(8),
)
def test_a_file_without_a_run_to_draw(tmp_path, plot, content, reason):
    (tmp_path / "rows.jsonl").write_bytes(content)
    code, out, err = plot(tmp_path / "rows.jsonl")
    assert code and out == "" and reason in err.splitlines()[-1] and len(err) < 2000
    assert not (tmp_path / "sweep.png").exists()


def test_names_that_are_formulas_to_matplotlib(tmp_path, plot):
    odd = {"model": "a$b", "strategy": "_x^{$", "tasks": ["$\\frac$"], "scores": {"$\\frac$": ROWS[3]["scores"]["t"]}}
    code, _, err = plot(write(tmp_path / "rows.jsonl", {**ROWS[3], **odd}, {**ROWS[4], "strategy": "\ud800" * 300}))
    assert code == 0, err


def test_intervals_without_ends(tmp_path, plot):
    score = {"value": 0.5, "n": 1, "low": float("-inf"), "high": float("inf")}
    assert plot(write(tmp_path / "rows.jsonl", {**ROWS[3], "scores": {"t": {"accuracy": score}}}))[0] == 0


@pytest.mark.parametrize("name", ["file/x.png", "folder.png", "x" * 300 + ".png", "full.png"])
def test_a_picture_that_cannot_be_written(tmp_path, plot, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "full.png").symlink_to("/dev/full")
    code, out, err = plot(write(tmp_path / "rows.jsonl", *ROWS), "--output", name)
    assert code and out == "" and err.startswith("error: cannot write") and err.count("\n") == 1


@pytest.mark.parametrize("name", [".", "missing.jsonl", "x" * 28_000])
def test_a_file_that_is_none(plot, name):
    code, _, err = plot(name)
    assert code == 2 and err.startswith("error: there is no file") and len(err) < 1000


def test_rows_of_this_repository_are_rows():
    rows, broken = read_rows(Path(__file__).parents[2] / "results" / "sweep.jsonl")
    assert len(rows) > 50 and broken == []


@pytest.mark.parametrize("content", ["# notes\n\ntext\n", '{"strategy": "none"}\n', "[]\n"])
def test_a_file_of_something_else_gets_no_rows(tmp_path, content):
    file = tmp_path / "other.md"
    file.write_text(content)
    with pytest.raises(InvalidRequest, match=r"is no file of a sweep \(line 1: no .*choose another --output"):
        check_rows(file, resume=True)


def test_a_cut_off_first_row_is_gone_on_with(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0])[:50])
    check_rows(tmp_path / "rows.jsonl", resume=True)
    check_rows(tmp_path / "missing.jsonl", resume=True)


def test_many_broken_lines_are_counted(tmp_path):
    file = tmp_path / "noise.txt"
    file.write_text("x\n" * 300)
    told = named(read_rows(file)[1])
    assert len(told) == 6 and told[0].startswith(f"{file}, line 1: no JSON")
    assert told[-1] == f"{file}: 295 more lines are left out"
