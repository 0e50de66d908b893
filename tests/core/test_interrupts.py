"""Ctrl-C and its like at any moment of a forward leave the model, and the handle, as they were."""

import asyncio
import sys

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import seeless as sl
from seeless.core import capture
from tiny_models import LAYERS, RAGGED, VARIANTS, make_inputs

LLAVA, NEXT = VARIANTS[1], VARIANTS[4]
INTERRUPTS = (KeyboardInterrupt, SystemExit, asyncio.CancelledError)
STRATEGIES = {
    "layers": [sl.PyramidDrop()],
    "entry": [sl.FasterVLM(keep=4), sl.FastV(keep=0.5, layer=3)],
    "tower": [sl.ToMe(keep=0.5)],
    "second prompt": [sl.PriorTR2F(keep=4, layer=3, prior_mode="template", before=(3, 4), between=(5,), after=(6, 7))],
}
every = pytest.mark.parametrize("name", STRATEGIES)


def attributes(model):
    """What stands in every module itself, hooks included."""
    found = []
    for module in model.modules():
        own = {name: value for name, value in vars(module).items() if not name.startswith("_forward")}
        found.append((own, {name: list(vars(module)[name]) for name in vars(module) if name.startswith("_forward")}))
    return found


def same(have, want):
    """Whether two of those name the same things."""
    return len(have) == len(want) and all(
        a.keys() == b.keys() and all(a[key] is b[key] or a[key] == b[key] for key in a) and hooks == others
        for (a, hooks), (b, others) in zip(have, want, strict=True)
    )


def places_of(model, variant):
    """Every module that runs in a forward of the model."""
    inputs, seen = make_inputs(model, variant, [RAGGED[1]]), []
    handles = [
        module.register_forward_pre_hook(lambda module, args, path=path: seen.append(path))
        for path, module in model.named_modules()
    ]
    model(**inputs)
    for handle in handles:
        handle.remove()
    return [path for path in dict.fromkeys(seen) if not path.endswith(("q_proj", "v_proj", "up_proj", "down_proj"))]


@pytest.mark.parametrize(
    ("variant", "name"), [(NEXT, "tower"), (LLAVA, "layers"), (LLAVA, "entry"), (LLAVA, "second prompt")], ids=str
)
@torch.no_grad()
def test_in_every_module(variant, name):
    model = variant.build("sdpa")
    inputs = make_inputs(model, variant, [RAGGED[1]])
    plain, places = model(**inputs).logits, places_of(model, variant)
    assert {"lm_head", "model.language_model.norm", f"model.language_model.layers.{LAYERS - 1}"} <= set(places)
    untouched = attributes(model)
    with sl.apply(model, STRATEGIES[name]) as run:
        want, carried = model(**inputs).logits, attributes(model)
        for number, path in enumerate(places):

            def stop(*args, kind=INTERRUPTS[number % 3]):
                raise kind

            module = model.get_submodule(path)
            register = module.register_forward_hook if number % 2 else module.register_forward_pre_hook
            hook = register(stop)
            with pytest.raises(INTERRUPTS[number % 3]):
                model(**inputs)
            hook.remove()
            assert same(attributes(model), carried), path
            assert torch.equal(model(**inputs).logits, want), path
        assert run._reducer.running.frame is None
    assert same(attributes(model), untouched)
    assert torch.equal(model(**inputs).logits, plain)


class At:
    """Raises at the `number`-th time that Python enters or leaves a function of seeless or a module's call."""

    def __init__(self, number, kind=KeyboardInterrupt):
        self.number, self.kind, self.count, self.raised = number, kind, 0, False

    def __call__(self, frame, event, argument):
        code = frame.f_code
        if event.startswith("c_") or ("seeless" not in code.co_filename and code.co_name != "_call_impl"):
            return
        if code.co_name in ("<genexpr>", "__del__"):  # Python swallows what is raised while a generator closes
            return
        self.count += 1
        if self.count == self.number:
            self.raised = True
            raise self.kind

    def run(self, call):
        sys.setprofile(self)
        try:
            return call()
        finally:
            sys.setprofile(None)


@every
@torch.no_grad()
def test_between_any_two_calls(name):
    """Also while seams are being put on and taken off."""
    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[1]])
    plain = model(**inputs).logits
    untouched = attributes(model)
    with sl.apply(model, STRATEGIES[name]):
        want, carried = model(**inputs).logits, attributes(model)
        whole = At(0)
        whole.run(lambda: model(**inputs))
        for number in range(1, whole.count, 89):
            at = At(number, INTERRUPTS[number % 3])
            with pytest.raises(INTERRUPTS):
                at.run(lambda: model(**inputs))
            assert at.raised and torch.equal(model(**inputs).logits, want), number
            assert same(attributes(model), carried), number
    assert same(attributes(model), untouched)
    assert torch.equal(model(**inputs).logits, plain)


@pytest.mark.parametrize("kind", INTERRUPTS)
@torch.no_grad()
def test_inside_a_strategy(kind):
    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    plain = model(**inputs).logits
    untouched, kernels = attributes(model), dict(ALL_ATTENTION_FUNCTIONS.items())

    class Stopped(sl.LayerStrategy):
        def score(self, ctx):
            ctx.attention()
            raise kind

    with pytest.raises(kind), sl.apply(model, Stopped(keep=0.5, layer=2)):
        model(**inputs)
    assert same(attributes(model), untouched) and dict(ALL_ATTENTION_FUNCTIONS.items()) == kernels
    assert torch.equal(model(**inputs).logits, plain)


@pytest.mark.parametrize("kind", INTERRUPTS)
def test_while_tokens_are_decoded(kind):
    """An interrupted answer, then the same question again."""
    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)

    class Stop(torch.nn.Module):
        def __call__(self, ids, scores, **options):
            if ids.shape[1] == inputs["input_ids"].shape[1] + 3:
                raise kind
            return torch.zeros(len(ids), dtype=torch.bool)

    with sl.apply(model, "fastv", keep=4) as run:
        want, carried = model.generate(**inputs, max_new_tokens=5, do_sample=False), attributes(model)
        with pytest.raises(kind):
            model.generate(**inputs, max_new_tokens=5, do_sample=False, stopping_criteria=[Stop()])
        assert same(attributes(model), carried) and run._reducer.running.frame is None
        assert torch.equal(model.generate(**inputs, max_new_tokens=5, do_sample=False), want)


def test_captures_that_were_not_quite_entered_or_left():
    """An interrupt may leave one noted in its thread and not installed, or the other way round."""
    stock = capture.AttentionInterface.get_interface
    noted, left = (capture.Capture({}, lambda number, call: None, False) for _ in range(2))
    capture._entered().append(noted)  # and no more
    left.__enter__()
    capture._entered().remove(left)  # and no more
    left.__exit__(None, None, None)
    capture.forget()
    assert capture.AttentionInterface.get_interface is stock and not capture._entered()
    with capture.Capture({}, lambda number, call: None, False):
        assert capture.AttentionInterface.get_interface is not stock
    assert capture.AttentionInterface.get_interface is stock
