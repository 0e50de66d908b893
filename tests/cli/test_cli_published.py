"""`seeless published`, and what is published beside what `seeless eval` and `seeless plot` have measured."""

import importlib
import json
import sys

import pytest

from published_table import write_table
from seeless.jsonl import append_lines
from stub_lmms_eval import write_stub


def test_a_table_with_its_sources(seeless):
    outcome = seeless("published", "--method", "FastV", "--model", "llava", "--benchmark", "pope", "--budget", "64")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["method", "model", "benchmark", "budget", "value", "metric", "source"]
    assert ["fastv", "LLaVA-1.5-7B", "POPE", "64", "59.6", "suspect", "F1", "(%)", "visionzip-lineage"] in [
        line.split() for line in lines
    ]
    assert "suspect, repeats the value at 128 tokens; 48.0 elsewhere (POPE)" in outcome.out
    assert lines[-1] == "6 figures, 1 of them suspect"


def test_as_json(seeless):
    rows = json.loads(seeless("published", "--method", "none", "--model", "LLaVA-1.5-7B", "--json").out)
    assert {row["strategy"] for row in rows} == {"none"} and all(row["citation"] for row in rows)
    assert {"gqa", "pope", None} <= {row["task"] for row in rows}


def test_names_that_nothing_has(seeless):
    outcome = seeless("published", "--method", "fastvv")
    assert outcome.code == 2 and "no figure is of the method 'fastvv'; did you mean fastv" in outcome.err


def test_without_pyarrow(seeless, monkeypatch):
    monkeypatch.setattr("seeless.eval.published.can_read", lambda: False)
    outcome = seeless("published")
    assert outcome.code == 3 and 'pip install "seeless[published]"' in outcome.err


@pytest.fixture
def stub(tmp_path, monkeypatch):
    folder = write_stub(tmp_path / "stub")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.delitem(sys.modules, "lmms_eval", raising=False)
    importlib.invalidate_caches()


EVALUATE = ["eval", "--model", "tiny", "--strategy", "fastv", "--keep", 0.25, "--tasks", "mme,pope", "--output"]


def test_beside_an_evaluation(seeless, stub, tmp_path, monkeypatch):
    write_table(
        tmp_path / "own.parquet",
        monkeypatch,
        {"value": 48.0},
        {"value": 49.0, "source": "other", "citation": "Another page"},
        {"value": 12.0, "source": "third", "citation": "A third page", "suspect": "columns look shifted"},
        {"value": 99.0, "tokens": 72, "share": 0.5},
        {"value": 98.0, "strategy": "priortr"},
        {"value": 97.0, "checkpoint": "another/model"},
    )
    outcome = seeless(*EVALUATE, "out")
    assert outcome.code == 0, outcome.err
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert "mme acc 50 48 to 49, 12 suspect +1 page, other, third" in lines
    assert "third: A third page; suspect, columns look shifted (SCENES)" in lines
    assert not any(value in outcome.out for value in ("99", "98", "97"))
    data = json.loads(seeless(*EVALUATE, "again", "--json").out)
    (one,) = data["published"]
    assert (one["measured"], one["apart"], len(one["figures"])) == (50.0, 1.0, 3)
    assert "part of the questions" in seeless(*EVALUATE, "third", "--limit", 3).out


def test_an_evaluation_without_pyarrow_says_what_is_left_out(seeless, stub, monkeypatch):
    monkeypatch.setattr("seeless.cli.evaluating.can_read", lambda: False)
    outcome = seeless(*EVALUATE, "out")
    assert outcome.code == 0 and "published figures need pyarrow" in outcome.err and "Published" not in outcome.out


def test_hollow_marks(seeless, tmp_path, monkeypatch):
    write_table(tmp_path / "own.parquet", monkeypatch, {"value": 48.0}, {"value": 52.0}, {"strategy": "pool"})
    score = {"acc": {"value": 0.5, "n": 10, "low": 0.4, "high": 0.6}}
    row = {
        **{"model": "tiny", "weights": "w", "tasks": ["mme"], "limit": None, "seed": None, "strategy": "fastv"},
        **{
            "keep": 0.25,
            "fields": {"keep": 0.25},
            "scores": {"mme": score},
            "loyalty": {"agreement": None, "kl": None},
        },
        **{"tokens": {"average": 63.0}, "flops": {"share": 0.5}},
    }
    append_lines(tmp_path / "rows.jsonl", row)
    append_lines(tmp_path / "rows.jsonl", {**row, "seed": 1})
    drawn = []
    scatter = "matplotlib.axes.Axes.scatter"
    monkeypatch.setattr(scatter, lambda axis, x, y, **how: drawn.append((x, y, how)))
    outcome = seeless("plot", tmp_path / "rows.jsonl", "--published", "--output", tmp_path / "a.svg")
    assert outcome.code == 0, outcome.err
    assert outcome.out.endswith("2 runs, 0 refused, 2 published figures\n")
    marks = [(x, y) for x, y, how in drawn if how["facecolors"] == "none" and isinstance(x, float)]
    assert marks == [(63.0, 48.0), (63.0, 52.0), (0.5, 48.0), (0.5, 52.0)]
    drawn.clear()
    assert seeless("plot", tmp_path / "rows.jsonl", "--output", tmp_path / "b.svg").out.endswith("2 runs, 0 refused\n")
    assert not any(isinstance(x, float) for x, _, _ in drawn)
