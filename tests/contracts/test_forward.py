"""Every family x every strategy x every attention backend: identity, oracle, decode, budget, batch."""

import math
from functools import cache

import pytest
import torch
from matrix import (
    CASES,
    CUT_AFTER_THE_TOWER,
    EVERY_CROP_AN_IMAGE,
    EVERYTHING,
    FINDS_ITS_COUNT,
    FLOORED,
    LEAVES_STILLS_ALONE,
    LEAVES_THE_TOWER,
    NEEDS_TEXT,
    NEW_TOKENS,
    ONE_FRAME,
    PLACEHOLDERS,
    STRATEGIES,
    case_id,
    gap,
    grids,
    rows_of,
)
from plan import backends_of, before_the_oracle, methods, pairs
from transformers import DynamicCache

import seeless as sl
from oracle import merges_of, oracle_of, turn_of
from seeless.core.host import CACHE
from seeless.registry import strategy_class
from tinies import make_inputs, make_pieces
from tiny_models import BACKENDS


def test_every_registered_strategy_is_under_contract():
    built_in = {name for name in sl.available() if strategy_class(name).__module__.startswith("seeless.")}
    assert built_in == set(STRATEGIES) == set(EVERYTHING)


every = pytest.mark.parametrize("case", CASES, ids=case_id)
backends = pytest.mark.parametrize("backend", BACKENDS)


def generate(model, inputs):
    """What `generate` gives, and the logits of the whole prompt, which it does not return."""
    kept = []
    every = {"logits_to_keep": inputs["input_ids"].shape[1]} if model._supports_logits_to_keep() else {}
    own = model.register_forward_hook(lambda module, given, out: kept.append(out.logits), prepend=True)
    try:
        out = model.generate(
            **inputs,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            **every,
        )
    finally:
        own.remove()
    return out, kept[0]


def refuses(tiny, name, backend, model, inputs):
    """Whether the pair cannot work; then it says so."""
    reason = gap(tiny, name, backend, "video" if "pixel_values_videos" in inputs else "image")
    if reason is None:
        return False
    if name not in LEAVES_STILLS_ALONE or "pixel_values_videos" in inputs:
        with pytest.raises(sl.UnsupportedModel, match=reason), sl.apply(model, STRATEGIES[name]):
            model(**inputs)
    return True


def placed(name, own, inputs):
    """The inputs as `generate` gives them to the model: a padded row counts its positions from its first token,
    beginning with 0, on PaliGemma with 1.

    Without that a row that begins elsewhere is the same to attention, which sees distances, but not to DART, which
    takes the L1 norm of rotated keys. Models whose positions have several axes do so by themselves.
    """
    if name != "dart" or own.mrope or own.name == "exaone4_5":  # which counts from the first column in `generate`, too
        return inputs
    first = int(own.name.startswith("paligemma"))
    return {**inputs, "position_ids": (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0) + first}


@every
@backends
@torch.no_grad()
def test_identity(tiny, case, backend, whole):
    model, (own, kind) = tiny(case[0], backend), case
    inputs = make_inputs(model, own, rows_of(kind))
    before = model(**inputs).logits
    for name in EVERYTHING if whole else methods(case, BACKENDS.index(backend)):
        strategy = EVERYTHING[name]
        with sl.apply(model, strategy) as run:
            after = model(**inputs).logits
        assert torch.equal(before, after), strategy
        assert run.report.n_before == run.report.n_after and run.report.share == 1


@cache
def plain_logits(tiny, case):
    """Of the untouched model on the inputs of a case."""
    (own, kind), model = case, tiny(case[0], "untouched")
    return model(**make_inputs(model, own, rows_of(kind))).logits


@before_the_oracle()
@torch.no_grad()
def test_oracle_prefill_and_decode(tiny, case, name, whole):
    """Prefill and decode equal the oracle's, on every attention backend."""
    (own, kind), strategy, untouched = case, STRATEGIES[name], tiny(case[0], "untouched")
    inputs = make_inputs(untouched, own, rows_of(kind))
    prompt = inputs["input_ids"].shape[1]
    text = ~torch.isin(inputs["input_ids"], torch.tensor(PLACEHOLDERS)) & inputs["attention_mask"].bool()
    want = kept = None
    for backend in BACKENDS if whole else backends_of(case, name):
        model = tiny(own, backend)
        if refuses(own, name, backend, model, inputs):
            continue
        with sl.apply(model, strategy) as run:
            out, whole = generate(model, inputs)
        if want is None:
            full = {**own.extend(inputs, NEW_TOKENS), "input_ids": out.sequences}
            turn = turn_of(run.reports[0], inputs["input_ids"], PLACEHOLDERS)
            places = grids(untouched, own, rows_of(kind), inputs["input_ids"])
            merges = merges_of(strategy, turn, places, model, untouched, inputs)
            with oracle_of(untouched, [strategy], [turn], full["attention_mask"], **merges):
                want = untouched(**full, use_cache=False).logits
            kept = [[row.tolist() for row in stage.kept] for stage in run.reports[0].stages]
        for report in run.reports:
            assert [[row.tolist() for row in stage.kept] for stage in report.stages] == kept
        assert (whole - want[:, :prompt])[text].abs().max() < 5e-5
        assert (torch.stack(out.logits, 1) - want[:, prompt - 1 : -1]).abs().max() < 1e-4
        assert torch.equal(want[:, prompt - 1 : -1].argmax(-1), out.sequences[:, prompt:])
    frames = kind == "video" and own.name not in ONE_FRAME
    if want is not None and (frames or name not in LEAVES_STILLS_ALONE):
        # the check has teeth: reduction does change the answer
        assert (plain_logits(tiny, case) - want[:, :prompt])[text].abs().max() > 1e-2


@pairs(turn=1)
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


@pairs(turn=2)
@torch.no_grad()
def test_a_row_of_a_batch_equals_the_row_alone(tiny, case, name, whole):
    """Padded left or right, in turns; with --all both."""
    model, (own, kind) = tiny(case[0], "sdpa"), case
    turn = (CASES.index(case) + list(STRATEGIES).index(name)) % 2
    sides = ("left", "right") if whole else ("left", "right")[turn : turn + 1]
    inputs = {side: make_inputs(model, own, rows_of(kind), side) for side in sides}
    if refuses(own, name, "sdpa", model, inputs[sides[0]]):
        return
    with sl.apply(model, STRATEGIES[name]) as run:
        together = {side: model(**placed(name, own, given)).logits for side, given in inputs.items()}
        reports = list(run.reports)
        assert len(reports) == len(sides)
        for i, row in enumerate(rows_of(kind)):
            alone = model(**placed(name, own, make_inputs(model, own, [row]))).logits[0]
            for side, given in inputs.items():
                real = given["attention_mask"][i].bool()
                assert (together[side][i][real] - alone).abs().max() < 5e-5
            if any(isinstance(part, str) for part in row):
                kept = [stage.kept[0].tolist() for stage in run.report.stages]
                assert all([stage.kept[i].tolist() for stage in report.stages] == kept for report in reports)
    assert len(run.reports) == len(sides) + sum(any(isinstance(p, str) for p in row) for row in rows_of(kind))


def unit_sizes(strategy, own, model, row):
    """Visual tokens of every unit of a row, from its pieces alone."""
    units, total = [], 0
    for piece in make_pieces(model, own, row):
        crops = [len(places) for places, _, _ in piece.crops]
        frames = strategy.scope == "frame" and piece.of_video
        if strategy.scope == "crop" or frames or own.name in EVERY_CROP_AN_IMAGE:
            units += crops
        else:
            units.append(piece.tokens)
        total += piece.tokens
    return ([total] if total else []) if strategy.scope == "row" else units


def wanted(strategy, stage, own, model, row):
    """Tokens the budget asks for in a row."""
    if strategy.name == "evs":
        return changed(strategy, own, model, row)
    if strategy.name == "dycoke":
        return compared(strategy, own, model, row)
    budget = strategy.keep[stage] if isinstance(strategy.keep, list) else strategy.keep
    if strategy.name == "clse":  # its one share stands for three
        budget *= (1.72, 1.09, 0.32)[stage]
    rounding = math.floor if strategy.name in FLOORED else round
    share = isinstance(budget, float)
    sizes = unit_sizes(strategy, own, model, row)
    return sum(max(1, min(n, rounding(n * budget) if share else budget)) for n in sizes)


def changed(evs, own, model, row):
    """All of stills; of a video the share, but at least its first frame and what shows no patch."""
    total = 0
    for piece in make_pieces(model, own, row):
        sizes = [len(places) for places, _, _ in piece.crops]
        must = sizes[0] + piece.tokens - sum(sizes)
        total += max(must, math.floor(piece.tokens * evs.keep)) if piece.of_video else piece.tokens
    return total


def compared(dycoke, own, model, row):
    """All of stills; of every frame of a video but the first of four the share, and all that shows no patch."""
    total = 0
    for piece in make_pieces(model, own, row):
        sizes = [len(places) for places, _, _ in piece.crops]
        less = [0 if t % 4 == 0 else n - int((1 - dycoke.drop) * n) for t, n in enumerate(sizes)]
        total += piece.tokens - (sum(less) if piece.of_video else 0)
    return total


@pairs(turn=3)
@torch.no_grad()
def test_budget_is_met_exactly_and_no_text_is_touched(tiny, case, name):
    (own, kind), strategy = case, STRATEGIES[name]
    model = tiny(own, "sdpa")
    rows = [*rows_of(kind), ["image:1", 5], [4, "image:0", "image:2", 3], [2, f"{kind}:1"]]
    inputs = make_inputs(model, own, rows)
    if refuses(own, name, "sdpa", model, inputs) or name in NEEDS_TEXT:
        rows = rows[:-1]
        inputs = make_inputs(model, own, rows)
        if gap(own, name, "sdpa", kind):
            return
    with sl.apply(model, strategy) as run:
        cache = model(**inputs, **{CACHE: DynamicCache(config=model.config.get_text_config())})[CACHE]
    parts = strategy.parts()
    for number, stage in enumerate(run.report.stages):
        part, index = (parts[number], 0) if len(parts) > 1 else (strategy, number)
        for have, row in zip(stage.n_after, rows, strict=True):
            units = unit_sizes(part, own, model, row)
            if name in ("flowcut", "tome") and own.name.startswith(CUT_AFTER_THE_TOWER) and len(set(units)) > 1:
                whole = part.count(0, max(units))  # its budget is that of whole tiles
                least = len(units) if name == "tome" else 1  # a group has one in every part of a tile, a patch has not
                assert least <= have <= sum(min(n, whole) for n in units)
            elif name in FINDS_ITS_COUNT:
                least = min(1, len(units)) if name in LEAVES_THE_TOWER else len(units)
                assert least <= have <= sum(units)
            else:
                assert have == wanted(part, index, own, model, row)
        assert [len(kept) for kept in stage.kept] == stage.n_after
        for kept in stage.kept:
            assert kept.tolist() == sorted(set(kept.tolist()))
    visual = torch.isin(inputs["input_ids"], torch.tensor(PLACEHOLDERS))
    text = (~visual & inputs["attention_mask"].bool()).sum(1)
    longest = max(t + n for t, n in zip(text.tolist(), run.report.stages[-1].n_after, strict=True))
    last = next(own for own in reversed(cache.layers) if getattr(own, "keys", None) is not None)  # some have none
    assert last.keys.shape[-2] == longest


@every
@torch.no_grad()
def test_bfloat16_is_finite(case, whole):
    own, kind = case
    model = own.build("sdpa", torch.bfloat16)
    inputs = make_inputs(model, own, rows_of(kind)[:2])
    for name in STRATEGIES if whole else methods(case, 4):
        if gap(own, name, "sdpa", kind) is None:
            with sl.apply(model, STRATEGIES[name]):
                assert model(**inputs).logits.isfinite().all(), name
