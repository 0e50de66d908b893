"""`threshold=`: a count outranks it, it outranks a share, and at least one token stays."""

import pytest
import torch

import seeless as sl
from tiny_models import RAGGED, VARIANTS, make_inputs

some = pytest.mark.parametrize("variant", (VARIANTS[1], VARIANTS[4]), ids=str)
LLAVA = VARIANTS[1]


def stage_of(model, strategy, inputs):
    with torch.no_grad(), sl.apply(model, strategy) as run:
        model(**inputs)
    return run.report.stages[-1]


@some
@pytest.mark.parametrize(("cls", "scope"), [(sl.FastV, "row"), (sl.PriorTR, "image"), (sl.FasterVLM, "crop")])
@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_it_outranks_a_share(tiny, variant, cls, scope, share):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    scores = stage_of(model, cls(keep=0.5, scope=scope), inputs).scores
    level = float(torch.cat(scores).nanquantile(0.6))
    stage = stage_of(model, cls(keep=share, scope=scope, threshold=level), inputs)
    for have, seen, kept in zip(stage.scores, scores, stage.kept, strict=True):
        assert torch.allclose(have, seen, equal_nan=True)
        above = set((have > level).nonzero()[:, 0].tolist())
        assert above <= set(kept.tolist())
        if scope == "row" and above:
            assert above == set(kept.tolist())
    assert sum(stage.n_after) < sum(stage.n_before)


@some
@pytest.mark.parametrize("level", [-1.0, 2.0])
def test_a_count_outranks_it(tiny, variant, level):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    plain = stage_of(model, sl.FastV(keep=5), inputs)
    with_level = stage_of(model, sl.FastV(keep=5, threshold=level), inputs)
    assert [k.tolist() for k in plain.kept] == [k.tolist() for k in with_level.kept]


@some
@pytest.mark.parametrize("scope", ["row", "image", "crop"])
def test_at_least_the_best_token_of_every_unit_stays(tiny, variant, scope):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    best = stage_of(model, sl.FastV(keep=1, scope=scope), inputs)
    stage = stage_of(model, sl.FastV(keep=0.5, threshold=2.0, scope=scope), inputs)
    assert [k.tolist() for k in stage.kept] == [k.tolist() for k in best.kept]


def test_scores_equal_to_it_go(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])

    class Steps(sl.LayerStrategy):
        def score(self, ctx):
            return ctx.index / 16

    stage = stage_of(model, Steps(keep=0.5, threshold=10 / 16), inputs)
    assert stage.kept[0].tolist() == [11, 12, 13, 14, 15]
    stage = stage_of(model, Steps(keep=0.5, threshold=-1.0), inputs)
    assert stage.n_after == [16]


def test_every_stage_has_the_same_threshold_and_its_own_scores(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    with torch.no_grad(), sl.apply(model, sl.FastV(keep=[0.9, 0.8], layer=[2, 4], threshold=0.02)) as run:
        model(**inputs)
    for stage in run.report.stages:
        for scores, kept, before in zip(stage.scores, stage.kept, stage.n_before, strict=True):
            assert len(kept) == max(int((scores > 0.02).sum()), min(1, before))


def test_logits_of_ragged_rows_are_those_of_each_row_alone(tiny):
    """A threshold leaves every row another length."""
    model, strategy = tiny(LLAVA, "sdpa"), sl.FastV(keep=0.5, threshold=0.03)
    rows = [RAGGED[0], RAGGED[1], RAGGED[3]]
    with torch.no_grad(), sl.apply(model, strategy) as run:
        together = model(**make_inputs(model, LLAVA, rows)).logits[:, -1]
        assert len(set(run.report.n_after)) > 1
        for row, logits in zip(rows, together, strict=True):
            assert torch.allclose(model(**make_inputs(model, LLAVA, [row])).logits[0, -1], logits, atol=5e-5)


@pytest.mark.parametrize(("cls", "message"), [(sl.Pool, "scores nothing"), (sl.VisPruner, "partly by diversity")])
def test_methods_that_cannot_take_one_say_so(cls, message):
    with pytest.raises(sl.BudgetError, match=message):
        cls(keep=0.5, threshold=0.1)
