"""Code that torch.compile made outlives handles, those of other models and the model's own."""

import pytest
import torch

import seeless as sl
from tiny_models import RAGGED, VARIANTS, make_inputs

LLAVA = VARIANTS[1]


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Counting:
    """A backend that runs what it is given, and counts."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize("kind", ["same class", "another class"])
@torch.no_grad()
def test_code_of_other_models_survives(kind):
    model, counting = LLAVA.build("sdpa"), Counting()
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])
    twin = LLAVA.build("sdpa") if kind == "same class" else torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    compiled = torch.compile(twin, backend=counting)

    def run():
        return compiled(**inputs).logits if kind == "same class" else compiled(torch.ones(2, 4))

    want = run()
    once = counting.graphs
    assert once > 0
    for strategy in (sl.FastV(keep=4), sl.FasterVLM(keep=4), sl.ToMe(keep=0.5)):
        with sl.apply(model, strategy):
            model(**inputs)
            assert torch.equal(run(), want)
        assert torch.equal(run(), want)
    assert counting.graphs == once


@pytest.mark.parametrize("way", ["torch.compile", "model.compile", "its forward"])
@torch.no_grad()
def test_a_compiled_model_notices_every_handle(way):
    model, counting = LLAVA.build("sdpa"), Counting()
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])
    strategies = (sl.FastV(keep=4), sl.FasterVLM(keep=4), sl.ToMe(keep=0.5), sl.FastV(keep=4))
    want, plain = [], model(**inputs).logits
    for strategy in strategies:
        with sl.apply(model, strategy):
            want.append(model(**inputs).logits)
    compiled = model
    if way == "torch.compile":
        compiled = torch.compile(model, backend=counting)
    elif way == "model.compile":
        model.compile(backend=counting)
    else:
        model.forward = torch.compile(model.forward, backend=counting)
    assert torch.allclose(compiled(**inputs).logits, plain, atol=1e-5)
    once = counting.graphs
    assert once > 0
    for strategy, expected in zip(strategies * 3, want * 3, strict=True):  # more often than torch compiles one function
        with sl.apply(compiled, strategy) as run:
            assert torch.allclose(compiled(**inputs).logits, expected, atol=1e-5)
            assert len(run.reports) == 1
        assert torch.allclose(compiled(**inputs).logits, plain, atol=1e-5)
    if way != "its forward":
        assert counting.graphs == once


@torch.no_grad()
def test_compiled_under_the_handle_first():
    model, counting = LLAVA.build("sdpa"), Counting()
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])
    plain = model(**inputs).logits
    with sl.apply(model, "fastv", keep=4) as run:
        want = model(**inputs).logits
        compiled = torch.compile(model, backend=counting)
        assert torch.allclose(compiled(**inputs).logits, want, atol=1e-5) and len(run.reports) == 2
    assert torch.allclose(compiled(**inputs).logits, plain, atol=1e-5) and counting.graphs > 0


class Logits(torch.nn.Module):
    """A model as exporters want it: tensors in, a tensor out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, pixel_values):
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "pixel_values": pixel_values}
        return self.model(**given, use_cache=False).logits


SENTENCE = "a model under seeless.apply runs eagerly and cannot be exported, traced or compiled with fullgraph=True"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("strategy", [sl.FastV(keep=4), sl.FasterVLM(keep=4)], ids=["layers", "entry"])
@torch.no_grad()
def test_exports_and_traces_are_refused(strategy):
    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])
    wrapped = Logits(model)
    given = tuple(inputs[name] for name in ("input_ids", "attention_mask", "pixel_values"))
    plain = model(**inputs).logits
    with sl.apply(model, strategy) as run:
        for record in (
            lambda: torch.export.export(wrapped, given),
            lambda: torch.export.export(model, (), dict(inputs)),
            lambda: torch.jit.trace(wrapped, given),
            lambda: torch.jit.trace(model, example_kwarg_inputs=dict(inputs), strict=False),
        ):
            with pytest.raises(sl.UnsupportedModel, match=SENTENCE) as refused:
                record()
            assert len(str(refused.value)) < 250
        with pytest.raises(Exception, match=SENTENCE):  # torch's own error, with our sentence as the reason
            torch.export.export(model, (), dict(inputs), strict=True)
        model(**inputs)
        assert len(run.reports) == 1
    assert torch.equal(model(**inputs).logits, plain)
