"""`average=`: what the decoder's layers see on average, against brute force and against the report's own numbers."""

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny_clip import save_clip

import seeless as sl
from seeless.budget import counts_on_average
from tinies import TINIES, make_inputs

DEPTH = 6
MODEL = TINIES[0]


def nearest_sum(average, original, layers, depth, ratios):
    """Of all counts that are next to the real ones in proportion, how near their sum comes to the average's."""
    left = Fraction(average) * depth - layers[0] * original
    widths = [b - a for a, b in itertools.pairwise([*layers, depth])]

    def real(factor):
        return [min(Fraction(original), max(Fraction(1), factor * ratio)) for ratio in ratios]

    # The factor at which the sum is reached lies between two at which some count begins or ends to grow.
    edges = sorted({Fraction(x) / r for r in ratios for x in (1, original)})
    sums = [sum(w * n for w, n in zip(widths, real(f), strict=True)) for f in edges]
    above = next(i for i, total in enumerate(sums) if total >= left)
    if sums[above] == left or above == 0:
        ideal = real(edges[above])
    else:
        share = (left - sums[above - 1]) / (sums[above] - sums[above - 1])
        ideal = real(edges[above - 1] + share * (edges[above] - edges[above - 1]))
    choices = [{n.__floor__(), n.__ceil__()} for n in ideal]
    falling = [c for c in itertools.product(*choices) if list(c) == sorted(c, reverse=True)]
    return ideal, min(abs(sum(w * n for w, n in zip(widths, c, strict=True)) - left) for c in falling), left, widths


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_counts_are_the_nearest_there_are(data):
    depth = data.draw(st.integers(2, 40))
    layers = sorted(data.draw(st.sets(st.integers(0, depth - 1), min_size=1, max_size=4)))
    original = data.draw(st.integers(1, 700))
    ratios = sorted((Fraction(data.draw(st.integers(1, 50))) for _ in layers), reverse=True)
    average = data.draw(st.integers(1, original))
    least = Fraction(layers[0] * original + depth - layers[0], depth)
    if average < least:
        with pytest.raises(sl.BudgetError, match=rf"give from {least.__ceil__()} to {original}$"):
            counts_on_average(average, original, tuple(layers), depth, tuple(map(float, ratios)))
        return
    counts = counts_on_average(average, original, tuple(layers), depth, tuple(map(float, ratios)))
    ideal, distance, left, widths = nearest_sum(average, original, layers, depth, ratios)
    assert counts == sorted(counts, reverse=True) and all(1 <= n <= original for n in counts)
    assert all(abs(n - real) < 1 + Fraction(1, 10**6) for n, real in zip(counts, ideal, strict=True))
    assert abs(sum(w * n for w, n in zip(widths, counts, strict=True)) - left) <= distance + Fraction(1, 10**6)
    if len(layers) == 1:  # then it is the nearest whole number
        assert abs(counts[0] - ideal[0]) <= Fraction(1, 2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


STAGED = {
    "fastv": lambda average, layers: sl.FastV(average=average, layer=layers[0]),
    "priortr": lambda average, layers: sl.PriorTR(average=average, layer=layers[0]),
    "dart": lambda average, layers: sl.Dart(average=average, layer=layers[0]),
    "random": lambda average, layers: sl.Random(average=average, layer=layers[0]),
    "pyramiddrop": lambda average, layers: sl.PyramidDrop(average=average, layer=layers),
    "proportions": lambda average, layers: sl.FastV([0.9, 0.5, 0.4], average=average, layer=layers),
    "clse": lambda average, layers: sl.CLSE(average=average, layer=layers),
    "sparsevlm": lambda average, layers: sl.SparseVLM(average=average, layer=layers),
}


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(sorted(STAGED)),
    st.sets(st.integers(1, DEPTH - 1), min_size=3, max_size=3).map(sorted),
    st.one_of(st.integers(1, 16), st.floats(0.05, 1.0)),
)
@torch.no_grad()
def test_the_report_shows_what_was_asked_for(name, layers, average):
    model, strategy = model_at_hand(), STAGED[name](average, layers)
    wanted = average if isinstance(average, int) else 16 * average
    first = layers[0]
    assume(wanted >= (16 * first + DEPTH - first) / DEPTH)
    with sl.apply(model, strategy) as run:
        model(**make_inputs(model, MODEL, [[3, "image:0", 4]]))
    report = run.report
    assert report.average_tokens * DEPTH == sum(row[0] for row in report.visual)
    cuts = strategy.layers(DEPTH)
    widest = max(b - a for a, b in itertools.pairwise([*cuts, DEPTH]))
    assert abs(report.average_tokens - wanted) * DEPTH <= widest / 2 + 1e-9
    assert [stage.layer for stage in report.stages] == cuts


def model_at_hand(built=[]):  # noqa: B006 (hypothesis takes no fixtures of a function's life)
    if not built:
        built.append(MODEL.build("sdpa"))
    return built[0]


ENTRY = ("divprune", "fastervlm", "vispruner", "holov", "evs", "vidcom2", "pool", "visionzip", "prumerge", "tome")


@pytest.mark.parametrize("averages", [(1, 1.0), (1.0, 1)], ids=str)
def test_one_token_and_all_of_them_are_two_averages(averages):
    """Whichever is asked for first."""
    counts_on_average.cache_clear()
    found = {str(average): counts_on_average(average, 16, (0,), 6, (1.0,)) for average in averages}
    assert found == {"1": [1], "1.0": [16]}


@pytest.mark.parametrize("name", [*ENTRY, "cdpruner", "random", "uniform"])
@pytest.mark.parametrize("average", [9, 0.6])
@torch.no_grad()
def test_at_the_entry_it_is_the_budget_itself(name, average, clip):
    model, more = model_at_hand(), {"clip": clip, "question": "how many digit ?"} if name == "cdpruner" else {}
    found = []
    for knobs in ({"average": average}, {"keep": average}):
        with sl.apply(model, name, **knobs, **more) as run:
            model(**make_inputs(model, MODEL, [[3, "image:0", 4]]))
        found.append(run.report.average_tokens)
    assert found[0] == found[1]


@torch.no_grad()
def test_every_row_and_image_on_its_own(tiny):
    """The unit is that of `scope`: a row's images together, or each on its own."""
    model, rows = model_at_hand(), [[3, "image:0", 4, "image:1", 5], [2, "image:2", 9]]
    for scope, counts in (("row", [14, 14]), ("image", [28, 14])):
        with sl.apply(model, sl.Random(average=14, layer=2, scope=scope)) as run:
            model(**make_inputs(model, MODEL, rows))
        assert run.report.n_after[1] == 13  # (6 * 14 - 2 * 16) / 4
        assert sum(row[0] for row in run.report.visual) == pytest.approx(DEPTH * counts[0], abs=4)


def test_what_is_refused():
    model = model_at_hand()
    for make, message in (
        (lambda: sl.FastV(average=0.0), "average=0.0 is not a share"),
        (lambda: sl.FastV(keep=1, average=9), "and so is keep=1;"),
        (lambda: sl.Random(keep=1, average=0.5), "and so is keep=1;"),
        (lambda: sl.FastV(average=0), "smallest budget is average=1"),
        (lambda: sl.FastV(average="9"), "average"),
        (lambda: sl.FastV(keep=0.5, average=9), "give one of them"),
        (lambda: sl.DivPrune(keep=3, average=9), "give one of them"),
        (lambda: sl.SparseVLM(keep=64, average=9), "give one of them"),
        (lambda: sl.CLSE(keep=64, average=9), "give one of them"),
        (lambda: sl.TOPS(keep=64, average=9), "give one of them"),
        (lambda: sl.FastV(average=9, threshold=0.1), "leave threshold=0.1 out"),
        (lambda: sl.FastV(average=9, layer=[2, 4]), "2 layers"),
        (lambda: sl.apply(model, sl.FastV(average=0.2)), r"average=0.2 is not .* layer 2 of 6; give from 0.33"),
        (lambda: sl.apply(model, [sl.FastV(average=9), sl.DivPrune(keep=0.5)]), "one of 2 strategies"),
        (lambda: sl.apply(model, sl.Router({2: sl.FastV(average=9), 4: sl.FastV(keep=0.4)})), "one of 2 strategies"),
        (lambda: sl.get("router", average=9), "has no field 'average'"),
    ):
        with pytest.raises(sl.BudgetError, match=message):
            make()
    with pytest.raises(TypeError, match="keep"):
        sl.FastV()
    for average, most in ((5, "6 to 16"), (17, "6 to 16")):
        with sl.apply(model, sl.FastV(average=average)), pytest.raises(sl.BudgetError, match=f"give from {most}$"):
            model(**make_inputs(model, MODEL, [[3, "image:0", 4]]))


def test_it_is_written_and_read_like_any_field():
    strategy = sl.get("fastv", average=9)
    assert strategy == sl.FastV(average=9) and strategy.to_dict()["average"] == 9
    assert sl.from_dict(strategy.to_dict()) == strategy
    assert "average" not in sl.FastV(keep=0.5).to_dict()
