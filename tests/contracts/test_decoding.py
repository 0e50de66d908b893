"""What a step of decoding costs under a handle: no operation, no wait and no upload more than the untouched model."""

import copy

import pytest
import torch
from counting import Calls, Counting

import seeless as sl
from seeless.core import continuing
from seeless.core.host import CACHE
from tinies import RAGGED, TINIES, make_inputs

ALIKE = [[5, "image:0", 9], [7, "image:1", 7]]
OWN = [tiny for tiny in TINIES if str(tiny) in ("llava-llama-mha", "llava_next-mistral-gqa", "qwen2_5_vl", "qwen3_5")]
METHODS = {
    "entry": sl.FasterVLM(keep=4),
    "tower": sl.ToMe(keep=0.5),
    "layer": sl.FastV(keep=4, layer=2),
    "layers": sl.PyramidDrop(keep=[0.8, 0.5, 0.2], positions="keep"),
    "trimmed": sl.PriorTR(keep=4, layer=3),
}


class Layers:
    """Which layers got seams in the forwards without new visual tokens."""

    def __init__(self, monkeypatch):
        self.seams, self._hook_layers = [], continuing.hook_layers
        monkeypatch.setattr(continuing, "hook_layers", self._see)

    def _see(self, layers, needed, before, hooks):
        self.seams.append(list(needed))
        self._hook_layers(layers, needed, before, hooks)


def steps(model, inputs, count=5):
    """Numbers of `(operations, waits, uploads)` of steps with the mask that `generate` gives; the first is left out."""
    out, found = model(**inputs), []
    mask = inputs["attention_mask"]
    positions = mask.sum(1, keepdim=True)
    for step in range(count):
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        given = {"input_ids": torch.full((len(mask), 1), 7), CACHE: out[CACHE], "position_ids": positions + step}
        if getattr(model.model, "rope_deltas", None) is not None:
            given["position_ids"] = (positions + step + model.model.rope_deltas).expand(3, -1, -1)
        with Counting() as counted:
            out = model(**given, attention_mask=mask)
        found.append((counted.operations, counted.waits, counted.uploads))
    return found[1:]


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("own", OWN, ids=str)
@pytest.mark.parametrize("rows", [ALIKE[:1], ALIKE, RAGGED], ids=["alone", "alike", "ragged"])
@torch.no_grad()
def test_a_step_adds_nothing(tiny, own, rows, name, backend, monkeypatch):
    model = tiny(own, backend)
    inputs = make_inputs(model, own, rows)
    plain = steps(model, inputs)
    with sl.apply(model, METHODS[name]) as run:
        layers = Layers(monkeypatch)
        reduced = steps(model, inputs)
    assert run.report.n_after != run.report.n_before
    for have, untouched in zip(reduced, plain, strict=True):
        assert all(a <= b for a, b in zip(have, untouched, strict=True)), (have, untouched)
    assert len(layers.seams) in (0, 5)
    if name in ("entry", "tower", "trimmed") and len(rows) == 1:  # all layers hold the same, without padding
        assert layers.seams == []
    if name in ("entry", "tower") or len(rows) == 1:  # no padding
        assert not any(layers.seams)


@torch.no_grad()
def test_a_step_after_an_entry_cut_asks_little_of_python(tiny):
    model = tiny(OWN[0], "sdpa")
    inputs = make_inputs(model, OWN[0], ALIKE)
    with sl.apply(model, METHODS["entry"]):
        given = {CACHE: model(**inputs)[CACHE], "input_ids": torch.tensor([[7], [7]])}
        given["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
        with Calls() as counted:
            model(**given)
    assert counted.calls <= 30, counted.which
    assert counted.hooks == 0


@torch.no_grad()
def test_a_step_that_was_cut_short_leaves_nothing(tiny):
    model = tiny(OWN[0], "sdpa")
    inputs = make_inputs(model, OWN[0], ALIKE)
    token = torch.tensor([[7], [7]])
    with sl.apply(model, METHODS["entry"]) as run:
        first = model(**inputs)
        cache = copy.deepcopy(first[CACHE])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model.model.language_model.norm, "forward", interrupt)
            with pytest.raises(KeyboardInterrupt):
                model(input_ids=token, **{CACHE: first[CACHE]})
        run.reports.clear()
        assert torch.equal(model(**inputs).logits, first.logits)
        assert len(run.reports) == 1
        assert cache.get_seq_length() == inputs["input_ids"].shape[1]
        longer = torch.nn.functional.pad(inputs["attention_mask"], (0, 2), value=1)
        with pytest.raises(sl.InputError, match="attention_mask has"):
            model(input_ids=token, attention_mask=longer, **{CACHE: cache})
        with pytest.raises(sl.InputError, match="ready-made"):
            model(input_ids=token, attention_mask={"full_attention": None}, **{CACHE: cache})


def interrupt(*args):
    raise KeyboardInterrupt


@torch.no_grad()
def test_tokens_that_a_hook_puts_in_place_of_others_are_looked_at(tiny):
    """And a cache that a hook takes away."""
    model = tiny(OWN[0], "sdpa")
    inputs = make_inputs(model, OWN[0], ALIKE)
    with sl.apply(model, METHODS["entry"]):
        caches = [model(**inputs)[CACHE] for _ in range(3)]
        token, other = torch.tensor([[7], [7]]), torch.tensor([[8], [9]])
        want = model(input_ids=other, **{CACHE: caches[0]}).logits
        hook = model.model.register_forward_pre_hook(
            lambda module, args, given: change(given, input_ids=other), with_kwargs=True
        )
        assert torch.equal(model(input_ids=token, **{CACHE: caches[1]}).logits, want)
        hook.remove()
        alone = model(input_ids=token).logits
        taken = {CACHE: None, "position_ids": None}
        hook = model.model.language_model.register_forward_pre_hook(
            lambda module, args, given: change(given, **taken), with_kwargs=True
        )
        assert (model(input_ids=token, **{CACHE: caches[2]}).logits - alone).abs().max() < 1e-5
        hook.remove()


def change(given, **others):
    return (), {**given, **others}


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@torch.no_grad()
def test_several_tokens_look_at_their_mask_once(tiny, backend):
    """And later steps know what was seen there: padding among them is seen by nobody."""
    own = TINIES[0]
    model = tiny(own, backend)
    inputs = make_inputs(model, own, ALIKE)
    text = torch.tensor([[4, 5, 6, 7], [0, 0, 6, 7]])
    with sl.apply(model, METHODS["layer"]):
        for zeros in (0, 2):
            cache = model(**inputs)[CACHE]
            mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 4), value=1)
            mask[1, -4 : -4 + zeros] = 0
            positions = mask.cumsum(1)[:, -4:] - 1
            with Counting() as counted:
                out = model(input_ids=text, attention_mask=mask, position_ids=positions, **{CACHE: cache})
            assert sum(n for line, n in counted.where.items() if line.startswith("core/transfer.py")) == 1
            mask, positions = torch.nn.functional.pad(mask, (0, 1), value=1), positions[:, -1:] + 1
            given = {"input_ids": torch.tensor([[8], [8]]), "position_ids": positions, CACHE: out[CACHE]}
            with Counting() as counted:
                after = model(**given, attention_mask=mask).logits
            assert not any(line.startswith("core/transfer.py") for line in counted.where)
            alone = {name: value[1:] for name, value in inputs.items()}
            cache = model(**alone)[CACHE]
            own_text = torch.cat([text[1:, zeros:], torch.tensor([[8]])], 1)
            want = model(input_ids=own_text, **{CACHE: cache}).logits
            assert (after[1, -1] - want[0, -1]).abs().max() < 1e-4
