"""Queries of a layer that has yet to run, made for the tokens that ask and no others: the same attention, for less."""

from weakref import WeakKeyDictionary

import pytest
import torch
from test_decoder_attention import DECODERS, build, inputs
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, StaticCache
from transformers.models.llama import modeling_llama

import seeless as sl
from seeless.core import ahead, capture
from seeless.core.host import CACHE
from tiny_models import VARIANTS, make_inputs

APART = set(DECODERS) - {"phi3", "deepseek_v3"}  # that project queries by themselves, in one step


@pytest.fixture(autouse=True)
def _nothing_tried_yet(monkeypatch):
    monkeypatch.setattr(ahead, "_alone", WeakKeyDictionary())
    monkeypatch.setattr(capture, "_checked", set())


class Asking(sl.LayerStrategy):
    """Keeps every second token; notes what the coming layer shows to a few, to others, and to all."""

    def score(self, ctx):
        rows = ("last", torch.tensor([3, 4]), "text")
        SEEN.append([ctx.attention(some, layer=ctx.layer, onto="row") for some in rows])
        return -(ctx.index % 2).float()


SEEN = []


def check_twice(model, given):
    """What the last token is shown in the first row, in a first forward and in a later one."""
    maps = model(**given, output_attentions=True).attentions[2].float()
    for _ in range(2):
        SEEN.clear()
        with sl.apply(model, Asking(keep=8, layer=2)):
            model(**given)
        assert (SEEN[0][0][0] - maps[0, :, -1:]).abs().max() < 5e-6


def kind_of(name):
    return "float32" if name in ("gpt_oss", "deepseek_v3") else "float64"


@pytest.mark.parametrize("kind", DECODERS)
@torch.no_grad()
def test_the_few_that_ask_see_what_they_see_among_all(kind):
    """The first forward compares; the second makes few queries where that is right."""
    dtype = getattr(torch, kind_of(kind))
    given, model = inputs(dtype), build(kind, "eager", dtype)
    maps = model(**given, output_attentions=True).attentions[2].float()
    for _ in range(2):
        SEEN.clear()
        with sl.apply(model, Asking(keep=8, layer=2)):
            model(**given)
        for row, (last, two, text) in enumerate(SEEN):
            assert (last[0] - maps[row, :, -1:]).abs().max() < 5e-6
            assert (two[0] - maps[row, :, 3:5]).abs().max() < 5e-6
            assert (text[0] - maps[row, :, -7 - row :]).abs().max() < 5e-6
    assert list(ahead._alone.values()) == [True] * (kind in APART)


class Rows(TorchDispatchMode):
    """Counts the rows that are multiplied with some weight."""

    def __init__(self, weight):
        super().__init__()
        self.address, self.found = weight.data_ptr(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            left, right = args[-2:]
            if right.data_ptr() == self.address:
                self.found.append(left.shape[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["llama", "phi3"])
@torch.no_grad()
def test_a_first_prompt_is_told_the_same_to_the_bit_as_a_later_one(kind):
    given, model = inputs(torch.float32), build(kind, "sdpa", torch.float32)
    SEEN.clear()
    for _ in range(2):
        with sl.apply(model, Asking(keep=8, layer=2)):
            model(**given)
    half = len(SEEN) // 2
    for first, later in zip(SEEN[:half], SEEN[half:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, later, strict=True))


@torch.no_grad()
def test_one_token_asks_and_one_query_is_made():
    model = VARIANTS[1].build("sdpa")
    given = make_inputs(model, VARIANTS[1], [[5, "image:0", 9], [5, "image:0", 9]])
    layer = model.model.language_model.layers[2].self_attn
    with sl.apply(model, sl.PyramidDrop(keep=0.5, layer=2)) as run:
        for _ in range(2):
            with Rows(layer.q_proj.weight) as queries, Rows(layer.k_proj.weight) as keys:
                model(**given)
            kept = run.report.stages[0].kept
    length = given["input_ids"].shape[1]
    assert queries.found == [2, 2 * (length - 8)]  # the last of both rows, and then the layer's own run
    assert keys.found == [2 * length, 2 * (length - 8)]
    assert len(kept[0]) == 8


class Quantising(torch.Tensor):
    """A weight that has what it is multiplied with rounded by one scale for all tokens."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.linear:
            scale = args[0].abs().amax() / 7
            args = (args[0] / scale).round() * scale, args[1].as_subclass(torch.Tensor), *args[2:]
            return torch.nn.functional.linear(*args)
        return super().__torch_function__(func, types, args, kwargs or {})


@torch.no_grad()
def test_every_models_own_layers_are_tried():
    given, plain, other = inputs(torch.float32), *(build("llama", "eager", torch.float32) for _ in range(2))
    for layer in other.model.language_model.layers:
        weight = layer.self_attn.q_proj.weight.data.as_subclass(Quantising)
        layer.self_attn.q_proj.weight = torch.nn.Parameter(weight, requires_grad=False)
    for model in (plain, other):
        check_twice(model, given)


@torch.no_grad()
def test_queries_that_depend_on_each_other_are_made_together(monkeypatch):
    stock = modeling_llama.apply_rotary_pos_emb

    def mixing(q, k, *args, **kwargs):
        return stock(q + q.mean(2, keepdim=True), k, *args, **kwargs)

    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", mixing)
    given, model = inputs(torch.float64), build("llama", "eager", torch.float64)
    check_twice(model, given)
    assert list(ahead._alone.values()) == [False]


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("prefix", [0, 5], ids=["alone", "after a prefix"])
@torch.no_grad()
def test_a_first_prompt_on_a_static_cache(prefix, backend):
    """Its masks have columns for all there is room for, and the first forward runs the kernel to compare."""
    model = VARIANTS[1].build(backend)
    given = make_inputs(model, VARIANTS[1], [[5, "image:0", 9], [5, "image:1", 9]])
    ids, text = given.pop("input_ids"), model.config.text_config
    told = []
    for cache in (StaticCache(config=text, max_cache_len=ids.shape[1] + 3), DynamicCache()):
        SEEN.clear()
        with sl.apply(model, Asking(keep=8, layer=2)):
            if prefix:
                model(input_ids=ids[:, :prefix], **{CACHE: cache})
            model(input_ids=ids[:, prefix:], **given, **{CACHE: cache})
        told.append([one for row in SEEN for one in row])
    for static, dynamic in zip(*told, strict=True):
        assert (static - dynamic).abs().max() < 5e-6
