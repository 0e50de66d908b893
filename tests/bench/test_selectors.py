"""The benchmark of selection costs, at a size that takes seconds: what it writes, not how long anything takes."""

import json

import pytest
import torch

import seeless as sl
from seeless import registry
from seeless.bench import selectors
from seeless.jsonl import read_lines

SMALL = ("--layers", "5", "--hidden", "64", "--heads", "2", "--tower", "64", "--rounds", "1", "--threads", "1")

PLUGIN = '''
import seeless as sl


@sl.register("needy")
class Needy(sl.LayerStrategy):
    """Needs what no model has."""

    def score(self, ctx):
        raise sl.UnsupportedModel("no model has it")


@sl.register("lavish")
class Lavish(sl.LayerStrategy):
    """Makes a square of numbers."""

    def score(self, ctx):
        visual = ctx.visual.shape[1]
        return (ctx.visual[:, :, :1] + ctx.visual.new_zeros(visual, visual)).sum(1)
'''


@pytest.fixture
def plugin(tmp_path):
    known, threads = dict(registry._strategies), torch.get_num_threads()
    file = tmp_path / "plugin.py"
    file.write_text(PLUGIN)
    yield file
    torch.set_num_threads(threads)
    registry._strategies.clear()
    registry._strategies.update(known)


def test_every_method_is_timed_or_left_out_with_a_reason(plugin, tmp_path, capsys):
    output = tmp_path / "selectors.json"
    selectors.main([*SMALL, "--tokens", "32", "64", "--plugin", str(plugin), "--output", str(output)])
    data = json.loads(output.read_text())
    assert list(data["methods"]) == sl.available()
    assert set(data["prefill_seconds"]) == {"32", "64"}
    assert all(seconds > 0 for seconds in data["prefill_seconds"].values())
    for by_tokens in data["methods"].values():
        assert set(by_tokens) == {"32", "64"}
        for row in by_tokens.values():
            assert row.get("skipped") or (row["seconds"] > 0 and row["share"] > 0 and row["peak_bytes"] > 0)
    timed = [name for name, rows in data["methods"].items() if "share" in rows["64"]]
    assert {"fastv", "priortr", "vispruner", "pool", "random", "lavish"} <= set(timed)
    assert data["methods"]["needy"]["32"] == {"skipped": "no model has it"}
    assert "still image" in data["methods"]["evs"]["64"]["skipped"]
    assert data["command"].startswith("python -m seeless.bench.selectors --layers 5")
    assert {"commit", "torch", "transformers", "seeless", "machine", "model", "rounds", "keep"} <= set(data)
    square = 4 * 64 * 64
    assert data["methods"]["lavish"]["64"]["peak_bytes"] >= 2 * square
    assert data["methods"]["fastv"]["64"]["peak_bytes"] < 2 * square
    out = capsys.readouterr().out
    assert "needy was left out: no model has it" in out
    assert "64 visual tokens: prefill" in out


def test_runs_are_lines_of_a_file_that_grows(tmp_path):
    output, threads = tmp_path / "long.jsonl", torch.get_num_threads()
    for tokens in ("16", "36"):
        selectors.main([*SMALL, "--strategies", "uniform", "--tokens", tokens, "--output", str(output)])
    torch.set_num_threads(threads)
    assert [list(row["methods"]["uniform"]) for _, row in read_lines(output)] == [["16"], ["36"]]


def test_the_model_is_left_as_it_was():
    model, inputs = selectors.build_model(16, 5, 64, 2, 64), selectors.prompt(16)
    before = model(**inputs).logits
    assert selectors.selection(model, inputs, "fastv") > 0
    assert torch.equal(model(**inputs).logits, before)


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        selectors.main([*SMALL, "--strategies", "fastvv"])
    assert "no strategy is called fastvv; there are " in capsys.readouterr().err


def test_allocations_count_what_is_there_at_once():
    given = torch.ones(1000)
    with selectors.Allocations() as watch:
        more = given + 1
        more.add_(1)  # in place
        view = more.view(10, 100)[2:]
        outside = given[5:]  # of what was there before
        both = torch.cat([more, given])
        assert watch.live == 4000 + 8000
        del more
        assert watch.live == 4000 + 8000  # the view still holds it
        del view
        assert watch.live == 8000
        total = both.sum()
        del both
    assert (watch.live, watch.peak) == (4, 12000)
    assert (float(total), len(outside)) == (4000, 995)
