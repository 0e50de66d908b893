"""One nominal budget, in the terms of every strategy."""

import pytest

import seeless as sl
from seeless.eval.nominal import all_strategies, at_budget, takes_seed
from seeless.eval.sweep import plan
from seeless.vtr import VTRConfig

COUNTS_ITSELF = {"dycoke", "mustdrop", "pixelprune", "prunevid"}  # by thresholds, or by frames


def test_every_strategy_takes_a_share_or_says_why_not():
    refused = {run.name for run in plan(all_strategies(), [0.25]) if run.refused}
    assert refused == {"router", *COUNTS_ITSELF} and set(all_strategies()) >= set(sl.available())


@pytest.mark.parametrize("name", ["fastv", "clse", "sparsevlm", "tome", "pool", "visionzip"])
@pytest.mark.parametrize("budget", [0.25, 64])
def test_keep_is_the_budget_in_general(name, budget):
    assert at_budget(name, budget) == sl.get(name, keep=budget)


@pytest.mark.parametrize("share", [0.5, 0.11, 1.0])
def test_stages_fall_in_equal_steps(share):
    keep = at_budget("pyramiddrop", share).keep
    assert keep[-1] == pytest.approx(share) and len(keep) == 3
    ratios = [after / before for before, after in zip([1.0, *keep], keep, strict=False)]
    assert ratios == pytest.approx([share ** (1 / 3)] * 3)


def test_stages_that_are_named():
    strategy = at_budget("pyramiddrop", 0.25, values={"layer": "2,4", "random.layer": "3"})
    assert strategy.layer == [2, 4] and strategy.keep == pytest.approx([0.5, 0.25])
    assert at_budget("random", 0.25, values={"layer": "2,4", "random.layer": "3"}).layer == 3


def test_a_number_of_tokens_does_not_stand_for_stages():
    with pytest.raises(sl.BudgetError, match="3 stages"):
        at_budget("pyramiddrop", 64)


def test_guests():
    assert at_budget("vtr:fastv", 0.3) == VTRConfig(strategy="fastv", keep_ratio=0.3)
    assert at_budget("vtr:clse", 0.3) == VTRConfig(strategy="clse", retain_ratio=0.3)
    assert at_budget("vtr:clse", 64) == VTRConfig(strategy="clse", keep_tokens=64)


def test_seeds():
    assert takes_seed("sparsevlm") and not takes_seed("vtr:fastv")
    assert at_budget("random", 0.5, seed=7).seed == 7


@pytest.mark.parametrize("field", ["keep", "fastv.keep", "random.seed"])
def test_what_a_sweep_sets_cannot_be_set(field):
    name = field.partition(".")[0] if "." in field else "fastv"
    with pytest.raises(sl.BudgetError, match="set by the sweep"):
        at_budget(name, 0.5, values={field: "1"})


def test_impossible_budgets_are_refused():
    assert "not a share" in plan(["fastv"], [1.5])[1].refused
    with pytest.raises(sl.UnknownStrategy, match="did you mean"):
        plan(["fastvv"], [0.5])
