"""Every family x every strategy x every attention backend: identity, oracle, decode, budget, batch."""

import math

import pytest
import torch

import seeless as sl
from oracle import MaskOracle, pooled, turn_of
from tiny_models import BACKENDS, IMAGE, RAGGED, VARIANTS, make_inputs, row_grids

STRATEGIES = {
    "random": sl.Random(keep=0.5),
    "uniform": sl.Uniform(keep=0.3),
    "pool": sl.Pool(keep=5),
    "fastv": sl.FastV(keep=0.5),
    "priortr": sl.PriorTR(keep=0.4),
    "pyramiddrop": sl.PyramidDrop(),
    "fastervlm": sl.FasterVLM(keep=5),
    "vispruner": sl.VisPruner(keep=0.4),
}
EVERYTHING = {
    "random": sl.Random(keep=1.0),
    "uniform": sl.Uniform(keep=1.0, layer=2),
    "pool": sl.Pool(keep=1.0),
    "fastv": sl.FastV(keep=1.0),
    "priortr": sl.PriorTR(keep=1.0),
    "pyramiddrop": sl.PyramidDrop(keep=[1.0, 1.0, 1.0]),
    "fastervlm": sl.FasterVLM(keep=1.0),
    "vispruner": sl.VisPruner(keep=1.0),
}
NEW_TOKENS = 5


def test_every_registered_strategy_is_under_contract():
    built_in = {
        name
        for name in sl.available()
        if type(sl.get(name, keep=[0.5] * 3 if name == "pyramiddrop" else 0.5)).__module__.startswith("seeless.")
    }
    assert built_in == set(STRATEGIES) == set(EVERYTHING)


every = pytest.mark.parametrize("variant", VARIANTS, ids=str)
named = pytest.mark.parametrize("name", STRATEGIES)
backends = pytest.mark.parametrize("backend", BACKENDS)


@every
@named
@backends
@torch.no_grad()
def test_identity(tiny, variant, name, backend):
    model = tiny(variant, backend)
    inputs = make_inputs(model, variant, RAGGED)
    before = model(**inputs).logits
    with sl.apply(model, EVERYTHING[name]) as run:
        after = model(**inputs).logits
    assert torch.equal(before, after)
    assert run.report.n_before == run.report.n_after and run.report.share == 1


@every
@named
@backends
@torch.no_grad()
def test_oracle_prefill_and_decode(tiny, variant, name, backend):
    model, untouched = tiny(variant, backend), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED)
    strategy = STRATEGIES[name]
    prompt = inputs["input_ids"].shape[1]
    with sl.apply(model, strategy) as run:
        out = model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        whole = model(**inputs).logits
    full = {**inputs, "input_ids": out.sequences}
    full["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, NEW_TOKENS), value=1)
    turn = turn_of(run.reports[0], inputs["input_ids"], IMAGE)
    merged = pooled(turn, row_grids(untouched, variant, RAGGED, inputs["input_ids"])) if name == "pool" else None
    with MaskOracle(untouched, [strategy], [turn], full["attention_mask"], merged):
        want = untouched(**full, use_cache=False).logits
    text = (inputs["input_ids"] != IMAGE) & inputs["attention_mask"].bool()
    assert (whole - want[:, :prompt])[text].abs().max() < 5e-5
    steps = torch.stack(out.logits, 1)
    assert (steps - want[:, prompt - 1 : -1]).abs().max() < 1e-4
    assert torch.equal(want[:, prompt - 1 : -1].argmax(-1), out.sequences[:, prompt:])
    plain = untouched(**inputs).logits  # the check has teeth: reduction does change the answer
    assert (plain - want[:, :prompt])[text].abs().max() > 1e-2


@every
@named
@torch.no_grad()
def test_dropped_positions_carry_the_last_kept_token(tiny, variant, name):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, [[5, "image:0", 9]])
    with sl.apply(model, STRATEGIES[name]) as run:
        logits = model(**inputs).logits[0]
    columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
    kept = set(columns[run.report.stages[-1].kept[0]].tolist())
    last = 4
    for column in columns.tolist():
        if column in kept:
            last = column
        assert torch.equal(logits[column], logits[last])


@every
@named
@backends
@torch.no_grad()
def test_a_row_of_a_batch_equals_the_row_alone(tiny, variant, name, backend):
    model = tiny(variant, backend)
    inputs = make_inputs(model, variant, RAGGED)
    with sl.apply(model, STRATEGIES[name]) as run:
        together = model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        report = run.report
        for i, row in enumerate(RAGGED):
            alone = model.generate(
                **make_inputs(model, variant, [row]),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
            assert torch.equal(alone.sequences[0, -NEW_TOKENS:], together.sequences[i, -NEW_TOKENS:])
            for a, b in zip(alone.logits, together.logits, strict=True):
                assert (a[0] - b[i]).abs().max() < 5e-5
            if i != 2:
                assert [s.kept[0].tolist() for s in run.report.stages] == [s.kept[i].tolist() for s in report.stages]


def wanted(strategy, stage, variant, model, row):
    """Tokens the budget asks for, from the sizes of the units alone."""
    import tiny_models as tm

    budget = strategy.keep[stage] if isinstance(strategy.keep, list) else strategy.keep
    rounding = math.floor if strategy.name in ("priortr", "pyramiddrop") else round
    units, total = [], 0
    for part in row:
        if isinstance(part, str):
            pixels, size = tm.picture(variant, int(part.split(":")[1]))
            if strategy.scope == "crop":
                units += [len(columns) for columns, _, _ in tm.crop_grids(variant, size, 0)]
            else:
                n = tm.visual_tokens(model, variant, pixels, size)
                units, total = [*units, n], total + n
    if strategy.scope == "row":
        units = [total] if total else []
    share = isinstance(budget, float)
    return sum(max(1, min(n, rounding(n * budget) if share else budget)) for n in units)


@every
@named
@torch.no_grad()
def test_budget_is_met_exactly_and_no_text_is_touched(tiny, variant, name):
    model, strategy = tiny(variant, "sdpa"), STRATEGIES[name]
    rows = [*RAGGED, ["image:1", 5], [4, "image:0", "image:2", 3]]
    inputs = make_inputs(model, variant, rows)
    with sl.apply(model, strategy) as run:
        cache = model(**inputs).past_key_values
    for number, stage in enumerate(run.report.stages):
        assert stage.n_after == [wanted(strategy, number, variant, model, row) for row in rows]
        assert [len(kept) for kept in stage.kept] == stage.n_after
        for kept in stage.kept:
            assert kept.tolist() == sorted(set(kept.tolist()))
    text = ((inputs["input_ids"] != IMAGE) & inputs["attention_mask"].bool()).sum(1)
    longest = max(t + n for t, n in zip(text.tolist(), run.report.stages[-1].n_after, strict=True))
    assert cache.layers[-1].keys.shape[-2] == longest


@every
@named
@pytest.mark.parametrize("padding", ["left", "right"])
@torch.no_grad()
def test_right_padding_gives_what_left_padding_gives(tiny, variant, name, padding):
    model, strategy = tiny(variant, "sdpa"), STRATEGIES[name]
    inputs = make_inputs(model, variant, RAGGED, padding)
    with sl.apply(model, strategy) as run:
        logits = model(**inputs).logits
        for i, row in enumerate(RAGGED):
            alone = model(**make_inputs(model, variant, [row])).logits[0]
            own = inputs["attention_mask"][i].bool()
            assert (logits[i][own] - alone).abs().max() < 5e-5
    assert len(run.reports) == 1 + sum(any(isinstance(p, str) for p in row) for row in RAGGED)


@every
@named
@torch.no_grad()
def test_bfloat16_is_finite(variant, name):
    model = variant.build("sdpa", torch.bfloat16)
    inputs = make_inputs(model, variant, RAGGED[:2])
    with sl.apply(model, STRATEGIES[name]):
        assert model(**inputs).logits.isfinite().all()
