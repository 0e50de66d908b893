"""Every family x every strategy x every attention backend: identity, oracle, decode, budget, batch."""

import math

import pytest
import torch
from matrix import (
    CASES,
    EVERY_CROP_AN_IMAGE,
    EVERYTHING,
    NEW_TOKENS,
    PLACEHOLDERS,
    STRATEGIES,
    case_id,
    gap,
    grids,
    rows_of,
)

import seeless as sl
from oracle import MaskOracle, pooled, turn_of
from seeless.registry import strategy_class
from tinies import make_inputs, make_pieces
from tiny_models import BACKENDS


def test_every_registered_strategy_is_under_contract():
    built_in = {name for name in sl.available() if strategy_class(name).__module__.startswith("seeless.")}
    assert built_in == set(STRATEGIES) == set(EVERYTHING)


every = pytest.mark.parametrize("case", CASES, ids=case_id)
named = pytest.mark.parametrize("name", STRATEGIES)
backends = pytest.mark.parametrize("backend", BACKENDS)


def generate(model, inputs):
    return model.generate(
        **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True
    )


def refuses(tiny, name, backend, model, inputs):
    """Whether the pair cannot work; then it says so."""
    reason = gap(tiny, name, backend)
    if reason is None:
        return False
    with sl.apply(model, STRATEGIES[name]), pytest.raises(sl.UnsupportedModel, match=reason):
        model(**inputs)
    return True


@every
@backends
@torch.no_grad()
def test_identity(tiny, case, backend):
    model, (own, kind) = tiny(case[0], backend), case
    inputs = make_inputs(model, own, rows_of(kind))
    before = model(**inputs).logits
    for strategy in EVERYTHING.values():
        with sl.apply(model, strategy) as run:
            after = model(**inputs).logits
        assert torch.equal(before, after), strategy
        assert run.report.n_before == run.report.n_after and run.report.share == 1


@every
@named
@backends
@torch.no_grad()
def test_oracle_prefill_and_decode(tiny, case, name, backend):
    model, untouched, (own, kind) = tiny(case[0], backend), tiny(case[0], "untouched"), case
    inputs = make_inputs(model, own, rows_of(kind))
    if refuses(own, name, backend, model, inputs):
        return
    strategy = STRATEGIES[name]
    prompt = inputs["input_ids"].shape[1]
    with sl.apply(model, strategy) as run:
        out = generate(model, inputs)
        whole = model(**inputs).logits
    full = {**own.extend(inputs, NEW_TOKENS), "input_ids": out.sequences}
    turn = turn_of(run.reports[0], inputs["input_ids"], PLACEHOLDERS)
    merged = pooled(turn, grids(untouched, own, rows_of(kind), inputs["input_ids"])) if name == "pool" else None
    with MaskOracle(untouched, [strategy], [turn], full["attention_mask"], merged):
        want = untouched(**full, use_cache=False).logits
    text = ~torch.isin(inputs["input_ids"], torch.tensor(PLACEHOLDERS)) & inputs["attention_mask"].bool()
    assert (whole - want[:, :prompt])[text].abs().max() < 5e-5
    steps = torch.stack(out.logits, 1)
    assert (steps - want[:, prompt - 1 : -1]).abs().max() < 1e-4
    assert torch.equal(want[:, prompt - 1 : -1].argmax(-1), out.sequences[:, prompt:])
    plain = untouched(**inputs).logits  # the check has teeth: reduction does change the answer
    assert (plain - want[:, :prompt])[text].abs().max() > 1e-2


@every
@named
@torch.no_grad()
def test_dropped_positions_carry_the_last_kept_token(tiny, case, name):
    model, (own, kind) = tiny(case[0], "sdpa"), case
    inputs = make_inputs(model, own, [[5, f"{kind}:0", 9]])
    if refuses(own, name, "sdpa", model, inputs):
        return
    with sl.apply(model, STRATEGIES[name]) as run:
        logits = model(**inputs).logits[0]
    visual = torch.isin(inputs["input_ids"][0], torch.tensor(PLACEHOLDERS))
    columns = visual.nonzero()[:, 0]
    kept = set(columns[run.report.stages[-1].kept[0]].tolist())
    last = int(columns[0]) - 1
    for column in range(int(columns[0]), len(visual)):
        if not visual[column] or column in kept:
            last = column
        else:
            assert torch.equal(logits[column], logits[last])


@every
@named
@torch.no_grad()
def test_a_row_of_a_batch_equals_the_row_alone(tiny, case, name):
    model, (own, kind) = tiny(case[0], "sdpa"), case
    inputs = make_inputs(model, own, rows_of(kind))
    if refuses(own, name, "sdpa", model, inputs):
        return
    with sl.apply(model, STRATEGIES[name]) as run:
        together = generate(model, inputs)
        report = run.report
        for i, row in enumerate(rows_of(kind)):
            alone = generate(model, make_inputs(model, own, [row]))
            assert torch.equal(alone.sequences[0, -NEW_TOKENS:], together.sequences[i, -NEW_TOKENS:])
            for a, b in zip(alone.logits, together.logits, strict=True):
                assert (a[0] - b[i]).abs().max() < 5e-5
            if any(isinstance(part, str) for part in row):
                assert [s.kept[0].tolist() for s in run.report.stages] == [s.kept[i].tolist() for s in report.stages]


def unit_sizes(strategy, own, model, row):
    """Visual tokens of every unit of a row, from its pieces alone."""
    units, total = [], 0
    for piece, part in zip(make_pieces(model, own, row), [p for p in row if isinstance(p, str)], strict=True):
        crops = [len(places) for places, _, _ in piece.crops]
        frames = strategy.scope == "frame" and part.startswith("video")
        if strategy.scope == "crop" or frames or own.name in EVERY_CROP_AN_IMAGE:
            units += crops
        else:
            units.append(piece.tokens)
        total += piece.tokens
    return ([total] if total else []) if strategy.scope == "row" else units


def wanted(strategy, stage, sizes):
    """Tokens the budget asks for."""
    budget = strategy.keep[stage] if isinstance(strategy.keep, list) else strategy.keep
    rounding = math.floor if strategy.name in ("priortr", "pyramiddrop") else round
    share = isinstance(budget, float)
    return sum(max(1, min(n, rounding(n * budget) if share else budget)) for n in sizes)


@every
@named
@torch.no_grad()
def test_budget_is_met_exactly_and_no_text_is_touched(tiny, case, name):
    (own, kind), strategy = case, STRATEGIES[name]
    model = tiny(own, "sdpa")
    rows = [*rows_of(kind), ["image:1", 5], [4, "image:0", "image:2", 3], [2, f"{kind}:1"]]
    inputs = make_inputs(model, own, rows)
    if refuses(own, name, "sdpa", model, inputs) or name == "priortr":  # priortr needs a token after the image
        rows = rows[:-1]
        inputs = make_inputs(model, own, rows)
        if gap(own, name, "sdpa"):
            return
    with sl.apply(model, strategy) as run:
        cache = model(**inputs).past_key_values
    for number, stage in enumerate(run.report.stages):
        assert stage.n_after == [wanted(strategy, number, unit_sizes(strategy, own, model, row)) for row in rows]
        assert [len(kept) for kept in stage.kept] == stage.n_after
        for kept in stage.kept:
            assert kept.tolist() == sorted(set(kept.tolist()))
    visual = torch.isin(inputs["input_ids"], torch.tensor(PLACEHOLDERS))
    text = (~visual & inputs["attention_mask"].bool()).sum(1)
    longest = max(t + n for t, n in zip(text.tolist(), run.report.stages[-1].n_after, strict=True))
    assert cache.layers[-1].keys.shape[-2] == longest


@every
@named
@torch.no_grad()
def test_right_padding_gives_what_left_padding_gives(tiny, case, name):
    model, (own, kind) = tiny(case[0], "sdpa"), case
    inputs = make_inputs(model, own, rows_of(kind), "right")
    if refuses(own, name, "sdpa", model, inputs):
        return
    with sl.apply(model, STRATEGIES[name]) as run:
        logits = model(**inputs).logits
        for i, row in enumerate(rows_of(kind)):
            alone = model(**make_inputs(model, own, [row])).logits[0]
            real = inputs["attention_mask"][i].bool()
            assert (logits[i][real] - alone).abs().max() < 5e-5
    assert len(run.reports) == 1 + sum(any(isinstance(p, str) for p in row) for row in rows_of(kind))


@every
@torch.no_grad()
def test_bfloat16_is_finite(case):
    own, kind = case
    model = own.build("sdpa", torch.bfloat16)
    inputs = make_inputs(model, own, rows_of(kind)[:2])
    for name, strategy in STRATEGIES.items():
        if gap(own, name, "sdpa") is None:
            with sl.apply(model, strategy):
                assert model(**inputs).logits.isfinite().all(), name
