"""What vLLM can serve, and why not the rest; how many tokens stay is known before a picture is seen."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import seeless as sl
import stub_vllm
from fake_context import FakeSources
from seeless.context import Context
from seeless.core.images import NO_PATCH, Image
from seeless.integrations.vllm import register
from seeless.integrations.vllm.counts import plan
from seeless.integrations.vllm.errors import NotServed
from seeless.integrations.vllm.launching import check_served
from seeless.integrations.vllm.layouts import frames
from seeless.integrations.vllm.served import MODEL_TYPES, SERVED, for_request, plain, reason_against, strategy_of

SERVES = [
    "cdpruner",
    "divprune",
    "fastervlm",
    "holov",
    "pool",
    "prumerge",
    "prumerge_plus",
    "random",
    "scope",
    "uniform",
    "vidcom2",
    "visionzip",
    "vispruner",
]


def served(mrope):
    found = []
    for name in sl.available():
        try:
            if reason_against(plain(sl.get(name, keep=0.25)), mrope) is None:
                found.append(name)
        except sl.SeelessError:
            continue
    return found


def test_the_methods_that_act_once_before_the_decoder_can_be_served():
    assert set(SERVES) <= set(served(mrope=False)) and {*SERVES, "evs"} <= set(served(mrope=True))
    decoder = {"fastv", "priortr", "pyramiddrop", "dart", "clse", "sparsevlm", "priortr_2f", "tome"}
    decoder |= {"flowcut", "mustdrop", "pixelprune"}
    assert not decoder & {*served(mrope=False), *served(mrope=True)}


@pytest.mark.parametrize(
    ("given", "mrope", "said"),
    [
        ({"strategy": "fastv", "keep": 0.25}, False, "between decoder layers"),
        ({"strategy": "uniform", "keep": 0.25, "layer": 2}, False, "between decoder layers"),
        ({"strategy": "tome", "keep": 0.5}, False, "layers of the vision tower"),
        ({"strategy": "priortr_2f", "keep": 0.25}, True, "second prompt"),
        ({"strategy": "prumerge"}, False, "lets the picture decide"),
        ({"strategy": "fastervlm", "keep": 0.25, "threshold": 0.1}, False, "lets the picture decide"),
        ({"strategy": "fastervlm", "keep": 16, "padding": True}, False, "lets the picture decide"),
        ({"strategy": "divprune", "keep": 16, "scope": "row"}, False, "all pictures of a prompt"),
        ({"strategy": "evs", "keep": 0.25}, False, "leaves gaps"),
        ({"strategy": "divprune", "keep": 0.25, "positions": "renumber"}, True, "coordinates of time"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_refused_in_one_sentence(given, mrope, said):
    with pytest.raises(NotServed, match=said) as error:
        strategy_of(given, mrope)
    assert "\n" not in str(error.value) and error.value.exit_code == 2


def test_what_is_no_strategy_is_refused():
    for given in (True, {}, {"keep": 0.25}):
        with pytest.raises(sl.BudgetError, match="names no strategy"):
            strategy_of(given, False)
    with pytest.raises(sl.UnknownStrategy, match="did you mean vispruner"):
        strategy_of({"strategy": "vispruna", "keep": 0.25}, False)
    with pytest.raises(sl.BudgetError, match="no field"):
        strategy_of({"strategy": "vispruner", "kep": 0.25}, False)
    with pytest.raises(NotServed, match="cannot be served"):
        check_served("gemma3", sl.DivPrune(keep=0.25))


def test_a_request_sets_its_budget_and_nothing_else():
    served = strategy_of({"strategy": "random", "keep": 0.25, "seed": 3}, False)
    assert for_request(served, None) is served
    assert for_request(served, {"keep": 64}) == sl.Random(keep=64, layer=0, seed=3)
    for asked in ({"keep": 0}, {"keep": 1.5}, {"keep": "many"}, {"keep": [1, 2]}, {"seed": 4}, {"keeps": 4}, 64):
        with pytest.raises(sl.BudgetError):
            for_request(served, asked)


def test_an_average_is_a_budget_of_every_request():
    served = strategy_of({"strategy": "uniform", "keep": 1.0, "average": 0.5, "layer": [0]}, False)
    assert served == sl.Uniform(keep=0.5, layer=0) and for_request(served, {"keep": 4}).keep == 4


def tiles():
    """A base tile of 3 x 3, and two tiles side by side whose rows end in a newline, without their last row."""
    crop = [0] * 9 + [1, 1, 1, 2, 2, 2, 2] * 2
    patch = [*range(9), *(n for row in (0, 3) for n in (row, row + 1, row + 2, row, row + 1, row + 2, NO_PATCH))]
    return Image(np.array(crop), np.array(patch), ((3, 3),) * 3)


@pytest.mark.parametrize(
    ("strategy", "image", "kept"),
    [
        (sl.DivPrune(keep=0.25), frames(1, 8, 8), 16),
        (sl.DivPrune(keep=200), frames(1, 8, 8), 64),
        (sl.DivPrune(keep=1.0), tiles(), 23),
        (sl.DivPrune(keep=5), tiles(), 5),  # of all tokens, newlines too
        (sl.FasterVLM(keep=4), tiles(), 4 * 3),  # of every tile; newlines leave
        (sl.FasterVLM(keep=4, newlines=True), tiles(), 4 * 3 + 2),
        (sl.FasterVLM(keep=0.5), tiles(), round(4.5) + 2 * 3),
        (sl.VisPruner(keep=4, scope="image"), tiles(), 4),
        (sl.EVS(keep=0.1), frames(4, 2, 3, video=True), 6),  # the first frame
        (sl.EVS(keep=0.5), frames(4, 2, 3, video=True), 12),
        (sl.EVS(keep=0.5), frames(4, 2, 3, video=True, trail=1), 12),
        (sl.EVS(keep=0.1), frames(4, 2, 3, video=True, trail=1), 7),
        (sl.EVS(keep=0.1), frames(1, 8, 8), 64),  # nothing repeats in a still
        (sl.VidCom2(keep=0.5), frames(4, 2, 3, video=True), 12),
        (sl.FasterVLM(keep=2), frames(4, 2, 3, video=True), 8),
    ],
    ids=lambda x: x if isinstance(x, int) else type(x).__name__,
)
def test_how_many_stay_follows_from_the_layout(strategy, image, kept):
    own = plan(strategy, image)
    assert own.kept == kept
    assert sorted({*own.others, *(t for unit in own.units for t in unit.tokens)}) == [
        t for t in range(len(image)) if t in own.others or any(t in unit.tokens for unit in own.units)
    ]


@pytest.mark.parametrize("image", [frames(3, 2, 3, video=True, trail=1), frames(1, 4, 4)], ids=["video", "still"])
@pytest.mark.parametrize("keep", [1, 0.2, 0.6])
def test_what_a_strategy_promises_is_what_it_keeps(image, keep):
    """The strategies with a promise of their own, asked about random tokens of the same layout."""
    own = plan(sl.EVS(keep=keep), image)
    tokens = torch.randn(1, len(image), 8, generator=torch.Generator().manual_seed(0))
    sources = FakeSources(of_patch=torch.from_numpy(image.patch)[None], of_frame=torch.from_numpy(image.frame)[None])
    sources.of_embeds = tokens
    ctx = Context(0, 0, own.counts[0], torch.arange(len(image))[None], len(image), None, {}, sources)
    assert int(sl.EVS(keep=keep).select(ctx).mask.sum()) == own.kept


def test_registering_is_light_and_can_be_repeated(monkeypatch):
    stub = stub_vllm.install(monkeypatch)
    register()
    hooks, models = dict(stub.hooks), dict(stub.registry.models)
    register()
    assert stub.hooks == hooks and stub.registry.models == models
    assert {f"Seeless{name}" for name in SERVED} == set(models) and len(MODEL_TYPES) == len(SERVED)
    heavy = "[name for name in ('torch', 'vllm', 'transformers') if name in sys.modules]"
    code = f"import sys, seeless.integrations.vllm; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.fixture
def hook(monkeypatch):
    """vLLM's hook for the configs of an architecture, once seeless is registered."""
    stub = stub_vllm.install(monkeypatch)
    register()
    return stub.hooks.__getitem__


def test_a_model_without_a_strategy_stays_vllms_own(hook):
    config = stub_vllm.Config("llava", "LlavaForConditionalGeneration")
    hook(config.architecture).verify_and_update_model_config(config)
    assert config.hf_config.architectures == ["LlavaForConditionalGeneration"]


def test_a_strategy_brings_the_class_that_drops_tokens(hook):
    for model_type, name, rate in (("llava", "Llava", None), ("qwen2_5_vl", "Qwen2_5_VL", 1e-18)):
        config = stub_vllm.Config(model_type, f"{name}ForConditionalGeneration", {"strategy": "divprune", "keep": 0.5})
        hook(config.architecture).verify_and_update_model_config(config)
        assert config.hf_config.architectures == [f"Seeless{name}ForConditionalGeneration"] == [config._architecture]
        assert config.mm.video_pruning_rate == rate


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mm_processor_kwargs": {"seeless": {"keep": 4}}}, "belongs to a request"),
        ({"enable_mm_embeds": True}, "somebody else has encoded"),
        ({"video_pruning_rate": 0.5}, "vLLM's own pruning"),
    ],
    ids=str,
)
def test_options_that_go_round_it_are_refused(hook, options, said):
    given = {"strategy": "divprune", "keep": 0.5}
    config = stub_vllm.Config("llava", "LlavaForConditionalGeneration", given, stub_vllm.MultiModal(**options))
    with pytest.raises(ValueError, match=said):
        hook(config.architecture).verify_and_update_model_config(config)
