"""What an answer loses without a region, against the mask oracle and against answering again, region by region."""

import numpy as np
import pytest
import torch

import seeless as sl
from oracle import oracle_of, turn_of
from seeless.analysis import Gathered, Occlusion, Seen, occlusion
from seeless.analysis.occlusion import Without, greedy_answer, regions_of
from tinies import IMAGE, TINIES, make_inputs

SIDE, REGION = 4, 3  # the tiny's grid, and regions that do not fill it: 3 x 3, 3 x 1, 1 x 3, 1 x 1


def tiny(name):
    return next(own for own in TINIES if own.name.startswith(name))


def measured(own, inputs, model, monkeypatch, at_once=3, **how):
    monkeypatch.setattr(occlusion, "AT_ONCE", at_once)
    monkeypatch.setattr(occlusion, "ANSWER", 4)
    return Occlusion(REGION, **how).measure(Seen(model, inputs, None), [])


def by_hand(height, width):
    """The places of each region, with plain loops."""
    found = []
    for top in range(0, height, REGION):
        for left in range(0, width, REGION):
            inside = [(row, column) for row in range(top, top + REGION) for column in range(left, left + REGION)]
            found.append([row * width + column for row, column in inside if row < height and column < width])
    return found


@pytest.mark.parametrize("name", ["llava-llama-mha", "qwen2_5_vl"])
def test_the_loss_is_that_of_a_model_that_is_forbidden_the_region(name, monkeypatch):
    monkeypatch.setattr(Without, "name", Without.__name__)  # by which the oracle finds it
    own = tiny(name)
    model, untouched = own.build("sdpa"), own.build("eager")
    inputs = make_inputs(model, own, [[5, "image:0", 9]])
    found = measured(own, inputs, model, monkeypatch)
    height, width = found.facts["grid"]
    answer = greedy_answer(model, inputs)
    whole = own.extend(inputs, len(answer))
    whole["input_ids"] = torch.cat([inputs["input_ids"], answer[None]], 1)
    start = inputs["input_ids"].shape[1]

    def likelihood():
        with torch.no_grad():
            logits = untouched(**whole, use_cache=False).logits[0, start - 1 : -1].double()
        own_answer = bool((logits.argmax(-1) == answer).all())
        return float(logits.log_softmax(-1)[range(len(answer)), answer].sum()), own_answer

    full, itself = likelihood()
    assert itself and found.pooled["occlusion/answer"][0] == pytest.approx(full, abs=1e-4)
    losses, changes = [], []
    for places in by_hand(height, width):
        gone = torch.zeros(1, height * width, dtype=torch.bool)
        gone[0, places] = True
        strategy = Without(gone=gone, found={})
        with sl.apply(model, strategy) as run, torch.no_grad():
            model(**inputs)
        assert sorted({*range(height * width)} - {*run.report.stages[0].kept[0].tolist()}) == places
        turn = turn_of(run.report, inputs["input_ids"], [IMAGE])
        with oracle_of(untouched, [strategy], [turn], whole["attention_mask"]):
            value, same = likelihood()
        losses.append(full - value)
        changes.append(not same)
        with sl.apply(model, strategy):
            assert bool(greedy_answer(model, inputs)[: len(answer)].equal(answer)) == same
    assert found.pooled["occlusion/loss"].reshape(-1) == pytest.approx(losses, abs=1e-4)
    assert found.pooled["occlusion/changed"].reshape(-1).tolist() == changes
    assert len({round(loss, 3) for loss in losses}) > 1


def test_batches_change_nothing_and_a_full_gpu_makes_them_smaller(monkeypatch):
    own = tiny("llava-llama-mha")
    model = own.build("sdpa")
    inputs = make_inputs(model, own, [[5, "image:0", 9]])
    want = measured(own, inputs, model, monkeypatch, at_once=1)
    sizes, forced = [], occlusion.force

    def small(model, inputs, answer, rows=1):
        sizes.append(rows)
        if rows > 2:
            raise torch.OutOfMemoryError("no room")
        return forced(model, inputs, answer, rows)

    monkeypatch.setattr(occlusion, "force", small)
    found = measured(own, inputs, model, monkeypatch, at_once=4)
    assert sizes == [1, 4, 2, 2]
    for name, values in want.pooled.items():
        np.testing.assert_allclose(found.pooled[name], values, atol=1e-5)


def test_what_methods_keep_of_the_loss(monkeypatch):
    own = tiny("llava-llama-mha")
    model = own.build("sdpa")
    inputs = make_inputs(model, own, [[5, "image:0", 9]])
    methods = {"8": {"uniform": sl.Uniform(keep=8), "fastv": sl.FastV(keep=8, layer=2)}}
    found = measured(own, inputs, model, monkeypatch, methods=methods)
    numbers = Occlusion(REGION, methods).numbers(Gathered().with_one("picture", found))
    loss = dict(enumerate(found.pooled["occlusion/loss"].reshape(-1)))
    of_token = [0.0] * SIDE * SIDE
    for number, places in enumerate(by_hand(SIDE, SIDE)):
        for place in places:
            of_token[place] = max(0.0, loss[number])
    for told, strategy in zip(numbers["kept"]["8"], methods["8"].values(), strict=True):
        with sl.apply(model, strategy) as run, torch.no_grad():
            model(**inputs)
        kept = run.report.stages[-1].kept[0].tolist()
        assert told["tokens"] == 0.5
        assert told["loss"] == pytest.approx(sum(of_token[place] for place in kept) / sum(of_token))


def test_regions_cover_a_grid_once():
    for height, width, side in ((4, 4, 3), (5, 7, 2), (1, 9, 4), (3, 2, 8)):
        regions = regions_of(height, width, side)
        assert regions.sum(0).tolist() == [1] * height * width
        assert len(regions) == -(-height // side) * -(-width // side)


def test_what_has_no_regions():
    with pytest.raises(sl.InputError, match="region=0"):
        Occlusion(0)
    own = tiny("llava_next")
    model = own.build("sdpa")
    with pytest.raises(sl.InputError, match="no single grid"):
        Occlusion(2).measure(Seen(model, make_inputs(model, own, [[5, "image:0", 9]]), None), [])
