"""Slips of those who write a method: refused with a sentence that names strategy, stage, layer and unit."""

import dataclasses
import functools
import inspect
import subprocess
import sys
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import nn

import seeless as sl
from seeless.errors import Origin, origin_of
from seeless.strategy import Positions
from tiny_models import RAGGED, VARIANTS, make_inputs

LLAVA = VARIANTS[1]
FILE = inspect.getsourcefile(inspect.currentframe())


@pytest.fixture(autouse=True)
def _names():
    from seeless import registry

    known = dict(registry._strategies)
    yield
    registry._strategies.clear()
    registry._strategies.update(known)


def made(**body):
    """A layer strategy `Mine` with this body."""
    return type("Mine", (sl.LayerStrategy,), {"__module__": __name__, **body})


def refused(tiny, cls, *parts, error=sl.StrategyError, rows=RAGGED[:1], **fields):
    """The error of one prefill; the model is as before."""
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, rows)
    strategy = cls(**{"keep": 4, **fields})
    with torch.no_grad():
        before = model(**inputs).logits
        with sl.apply(model, strategy), pytest.raises(error) as caught:
            model(**inputs)
        assert torch.equal(model(**inputs).logits, before)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    return caught.value


# What is returned.


def spoilt(value):
    return lambda self, ctx: torch.where(ctx.index == 3, value, ctx.index.double())


@pytest.mark.parametrize(
    ("score", "parts"),
    [
        (spoilt(torch.nan), ["Mine, stage 0, before layer 2, row 0: it has 1 scores that are NaN"]),
        (spoilt(torch.inf), ["stage 0, before layer 2, row 0", "1 scores that are infinite"]),
        (spoilt(-torch.inf), ["infinite"]),
        (spoilt(1e300), ["too large for float32"]),
        (lambda self, ctx: None, ["Mine.score returned None; is a return missing?", "[1, 16]"]),
        (lambda self, ctx: ctx.index.tolist(), ["Mine.score returned a list", "a tensor of [1, 16]"]),
        (lambda self, ctx: np.zeros((1, 16)), ["Mine.score returned a ndarray"]),
        (lambda self, ctx: 0.5, ["Mine.score returned a float"]),
        (lambda self, ctx: ctx.index[0], ["Mine.score returned [16] for [1, 16] [units, visual]"]),
        (lambda self, ctx: ctx.index.to(torch.complex64), ["Mine.score returned a torch.complex64 tensor [1, 16]"]),
    ],
)
def test_scores(tiny, score, parts):
    refused(tiny, made(score=score), *parts)
    refused(tiny, made(score=score), *parts, threshold=2.5, keep=0.5)


def keep_of(*places):
    index = torch.tensor([places], dtype=torch.long)
    return lambda self, ctx: sl.Keep.indices(index.expand(len(ctx.index), -1), ctx.index.shape[1])


@pytest.mark.parametrize(
    ("select", "parts"),
    [
        (keep_of(0, 1, 2), ["Mine, stage 0, before layer 2, row 0: it keeps 1 tokens fewer than its budget of 4"]),
        (keep_of(0, 1, 2, 3, 5, 7), ["row 0: it keeps 2 tokens more than its budget of 4"]),
        (keep_of(0, 1, 2, 2), ["row 0: it keeps 1 tokens fewer"]),
        (keep_of(0, 1, 2, 3, 3), ["row 0: it names 1 tokens more than once"]),
        (keep_of(0, 1, 2, 3, 16), ["row 0: it names 1 tokens that are not there (0 to 15 are)"]),
        (keep_of(0, 1, 2, 3, -1), ["not there"]),
        (lambda self, ctx: sl.Keep.indices(torch.tensor([1, 2, 3, 4]), 16), ["[units, kept]", "index[None]"]),
        (lambda self, ctx: sl.Keep.indices(ctx.index < 4, 16), ["a bool mask to Keep itself"]),
        (lambda self, ctx: None, ["Mine.select gave None; is a return missing?"]),
        (lambda self, ctx: ctx.index < 4, ["Mine.select gave a torch.bool tensor", "sl.Keep"]),
        (lambda self, ctx: sl.Keep(ctx.index), ["mask", "torch.int64", "bool of shape [1, 16]"]),
        (lambda self, ctx: sl.Keep(ctx.index[0] < 4), ["mask must be a tensor of bool of shape [1, 16]"]),
        (lambda self, ctx: sl.Keep((ctx.index < 4)[:, :9]), ["a torch.bool tensor [1, 9]"]),
        (lambda self, ctx: sl.Keep((ctx.index < 4).tolist()), ["with a list"]),
        (lambda self, ctx: sl.Keep(ctx.index < 4, ctx.index[0]), ["Keep(scores=...)"]),
        (lambda self, ctx: sl.Keep(ctx.index < 4, torch.full((1, 16), torch.nan)), ["16 scores that are NaN"]),
    ],
)
def test_selections(tiny, select, parts):
    refused(tiny, made(select=select), *parts)


def test_a_method_may_find_the_number_itself(tiny):
    model = tiny(LLAVA, "sdpa")
    cls = made(select=keep_of(0, 1, 2), adaptive=True)
    with torch.no_grad(), sl.apply(model, cls(keep=4)) as run:
        model(**make_inputs(model, LLAVA, RAGGED[:1]))
    assert run.report.n_after == [3]
    refused(tiny, made(select=keep_of(), adaptive=True), "row 0: it keeps no token")


def merge_of(**more):
    def reduce(self, ctx):
        place = torch.zeros_like(ctx.index[:, :2])
        return sl.Merge(**{"mask": ctx.index < 4, "source": place, "slot": place, "weight": place + 0.5, **more})

    return reduce


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ({"weight": torch.tensor([[0.5, torch.nan]])}, ["Mine, stage 0, before layer 2, row 0: it has 1 weights"]),
        ({"weight": torch.tensor([[torch.inf, 1.0]])}, ["1 weights"]),
        ({"weight": torch.tensor([[1.0]])}, ["Mine.reduce gave Merge(weight=...)", "[1, 2]"]),
        ({"source": torch.tensor([[0, 16]])}, ["1 sources that are not there (0 to 15 are)"]),
        ({"slot": torch.tensor([[0, 16]])}, ["1 slots that are not there"]),
        ({"slot": torch.tensor([[0, 9]])}, ["gives weight to 1 slots whose tokens leave"]),
        ({"source": torch.tensor([[0.0, 1.0]])}, ["source must be a tensor of whole numbers"]),
        ({"features": "tower"}, ["choose hidden or vision"]),
    ],
)
def test_merges(tiny, more, parts):
    refused(tiny, made(reduce=merge_of(**more)), *parts)


def test_the_unit_is_named(tiny):
    """Of several rows and images, the one that is wrong, at the stage where it is."""
    rows = [[3, 4, "image:0", 5], [3, 4, "image:1", 5]]
    refused(tiny, made(score=lambda self, ctx: spoil_last(ctx)), "image 0 of row 1", rows=rows, scope="image")
    second = made(score=lambda self, ctx: spoil_last(ctx) if ctx.stage_index else ctx.index.float())
    refused(tiny, second, "Mine, stage 1, before layer 4, row 1", rows=rows, layer=[2, 4], keep=[8, 4])


def spoil_last(ctx):
    scores = ctx.index.float().clone()
    scores[-1, 0] = torch.nan
    return scores


# What raises.


def boom(ctx):
    return {"a": 1}["b"]  # the line that a note names


def raises(self, ctx):
    return boom(ctx)


BOOM = inspect.getsourcelines(boom)[1] + 1


@pytest.mark.parametrize("rung", ["score", "select", "reduce", "prepare"])
def test_an_exception_keeps_its_type_and_says_where_it_was_raised(tiny, rung):
    body = {rung: raises, **({"score": spoilt(0.5)} if rung == "prepare" else {})}
    error = refused(tiny, made(**body), error=KeyError)
    origin = origin_of(error)
    assert isinstance(origin, Origin) and origin in error.__notes__
    where = "before the first layer" if rung == "prepare" else "stage 0, before layer 2"
    assert origin == f"{FILE}:{BOOM}, in boom of Mine, {where}"


def test_an_error_deep_inside_names_the_methods_line(tiny):
    def score(self, ctx):
        return ctx.visual.view(3, 5, 7)  # raised by torch

    line = inspect.getsourcelines(score)[1] + 1
    error = refused(tiny, made(score=score), error=RuntimeError)
    assert origin_of(error) == f"{FILE}:{line}, in score of Mine, stage 0, before layer 2"


def test_our_own_errors_stay_sentences(tiny):
    error = refused(tiny, made(score=lambda self, ctx: ctx.attention("first")))
    assert "in <lambda> of Mine, stage 0, before layer 2: queries='first' is not possible" in str(error)
    assert str(error).startswith(f"{FILE}:") and origin_of(error) is None


@pytest.mark.parametrize(
    ("ask", "part"),
    [
        (lambda ctx: ctx.attention(layer=99), "attention of decoder layer 99 cannot be read"),
        (lambda ctx: ctx.entering(1), "what entered layer 1 is not known here"),
        (lambda ctx: ctx.second([1], [1], [1], [0]), "a second prompt can only be run before"),
        (lambda ctx: ctx.vision_attention(99, "all"), "99"),
    ],
)
def test_a_wrong_question_names_the_line_that_asked(tiny, ask, part):
    error = refused(tiny, made(score=lambda self, ctx: ask(ctx)), part, error=sl.InputError)
    assert str(error).startswith(f"{FILE}:") and "of Mine, stage 0, before layer 2: " in str(error)


@pytest.mark.parametrize("method", ["layers", "watches"])
@pytest.mark.parametrize("said", [3, [2.0], [-1], [99], None, "2"])
def test_no_layers(tiny, method, said):
    model = tiny(LLAVA, "sdpa")
    cls = made(score=spoilt(0.5), **{method: lambda self, depth: said})
    refusal = pytest.raises(sl.StrategyError, match=rf"Mine.{method} returned .*list of whole numbers")
    with torch.no_grad(), refusal, sl.apply(model, cls(keep=4)):
        model(**make_inputs(model, LLAVA, RAGGED[:1]))


def test_no_note_on_what_is_not_the_strategys(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])
    handle = model.model.language_model.layers[3].register_forward_pre_hook(lambda *a: 1 / 0)
    try:
        with torch.no_grad(), sl.apply(model, "fastv", keep=4), pytest.raises(ZeroDivisionError) as caught:
            model(**inputs)
    finally:
        handle.remove()
    assert origin_of(caught.value) is None


@pytest.mark.parametrize("name", ["count", "score", "stage", "name", "tower"])
def test_a_field_that_hides_what_every_strategy_has(name):
    with pytest.raises(sl.StrategyError, match=f"^{name} cannot be a field of Mine, .* another one$"):
        made(score=spoilt(0.5), __annotations__={name: int}, **({} if name == "score" else {name: 3}))


def test_an_init():
    def init(self, weight=1.0):
        pass

    with pytest.raises(sl.StrategyError, match=r"Mine has an __init__, .* NAME: TYPE = DEFAULT"):
        made(score=spoilt(0.5), __init__=init)


def test_a_strategy_that_acts_nowhere():
    cls = type("Mine", (sl.Strategy,), {"__module__": __name__, "score": spoilt(0.5)})
    with pytest.raises(sl.StrategyError, match=r"does not say where it acts; derive it from sl.LayerStrategy"):
        sl.register("mine")(cls)


@pytest.mark.parametrize("name", ["all", "none"])
def test_names_that_stand_for_something_else(name):
    from seeless.vtr import register_strategy

    with pytest.raises(ValueError, match=f"the name '{name}' stands for"):
        sl.register(name)(made(score=spoilt(0.5)))
    with pytest.raises(ValueError, match=f"the name '{name}' stands for"):
        register_strategy(name)(type("Guest", (), {"compute_scores": lambda self, *args: None}))


def test_a_name_of_ours(tmp_path):
    """Refused where it is registered, also before anything has looked for seeless' own strategies."""
    file = tmp_path / "mine.py"
    body = "import seeless as sl\n@sl.register('fastv')\nclass Mine(sl.LayerStrategy):\n    def score(self, ctx): ...\n"
    file.write_text(body)
    run = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    assert "ValueError: the name 'fastv' already belongs to seeless.strategies.fastv.FastV" in run.stderr


def test_a_broken_entry_point(monkeypatch):
    """Of a package that is installed: every look-up says which, in a sentence."""
    from importlib import metadata

    from seeless import registry

    broken = metadata.EntryPoint("theirs", "no_such_module_of_theirs", registry.ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [broken])
    registry._scan.cache_clear()
    with pytest.raises(sl.StrategyError, match="entry point theirs = no_such_module_of_theirs cannot be loaded"):
        sl.available()
    monkeypatch.undo()
    assert "fastv" in sl.available()


def test_attributes_cannot_be_set(tiny):
    def score(self, ctx):
        self.cache = ctx.index
        return ctx.index.float()

    error = refused(tiny, made(score=score), "ctx.memory['cache']", error=dataclasses.FrozenInstanceError)
    assert "in score of Mine" in origin_of(error)
    with pytest.raises(dataclasses.FrozenInstanceError, match="never changes"):
        sl.FastV(keep=4).keep = 3


def test_what_no_stage_has_remembered(tiny):
    """A stage of budget 1.0 is not asked; `watches` is the way to look there."""
    asked = []

    def score(self, ctx):
        asked.append(ctx.stage_index)
        return ctx.memory["then"] if ctx.stage_index else ctx.memory.setdefault("then", ctx.index.float())

    error = refused(tiny, made(score=score), "`watches`", "'then'", error=KeyError, layer=[2, 4], keep=[1.0, 0.25])
    assert asked == [1] and origin_of(error) is not None
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])
    seen = []

    def watching(self, ctx):
        then = ctx.entering(2)
        seen.append(then)
        return (ctx.visual - then.gather(1, ctx.index[..., None].expand_as(ctx.visual))).norm(dim=-1)

    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
        with sl.apply(model, made(score=watching, watches=lambda self, depth: [2])(keep=4, layer=4)) as run:
            model(**inputs)
        with sl.apply(model, made(score=score, keeps_all=lambda self, stage: False)(keep=[1.0, 4], layer=[2, 4])):
            model(**inputs)
    places = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    assert torch.allclose(seen[0], states[2][:, places], atol=1e-6) and run.report.n_after == [4]
    assert asked == [1, 0, 1]


# What is declared.


@pytest.mark.parametrize("default", [[3, 7], {"a": 1}, {1, 2}], ids=str)
def test_mutable_defaults_are_copied(default):
    kind = type(default).__name__
    cls = type("Mine", (sl.LayerStrategy,), {"__annotations__": {"own": kind}, "own": default, "score": raises})
    one, other = cls(keep=4), cls(keep=4)
    assert one.own == other.own == default and one.own is not other.own and one.own is not default


def test_a_list_of_layers_as_the_default():
    class Twice(sl.LayerStrategy):
        layer: list[int] = [3, 7]
        weights: list[float] = dataclasses.field(default=[1.0], kw_only=True)
        steps: ClassVar[dict] = {}

        def score(self, ctx):
            return ctx.index.float()

    strategy = Twice(keep=[0.5, 0.25])
    assert strategy.layer == [3, 7] and strategy.weights == [1.0] and Twice.steps is Twice(keep=[1, 1]).steps
    assert Twice(keep=[4], layer=[3]).layer == [3]
    assert dataclasses.replace(strategy, keep=[4, 2]).layer == [3, 7]


def test_a_field_without_default():
    with pytest.raises(sl.StrategyError, match=r"Mine: non-default argument 'weight'.*field\(kw_only=True\)"):
        made(__annotations__={"weight": float}, score=raises)
    cls = made(__annotations__={"weight": float}, weight=dataclasses.field(kw_only=True), score=raises)
    assert cls(keep=4, weight=2).weight == 2
    sl.register("needs_weight")(cls)
    with pytest.raises(sl.BudgetError, match="weight"):
        sl.get("needs_weight", keep=4)


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("weight", 0.1, ["weight = 0.1 in Mine is no field", "weight: float = 0.1", "ClassVar[float]"]),
        ("alpha", "x", ["alpha: str = 'x'"]),
        ("switch", True, ["switch: bool = True"]),
        ("table", [1, 2], ["table: list = [1, 2]"]),
        ("layer", 4, ["layer = 4 in Mine changes no default", "layer: int | list[int] = 4"]),
        ("scope", "image", ["scope: ", "= 'image'"]),
    ],
)
def test_attributes_without_annotation(name, value, parts):
    with pytest.raises(sl.StrategyError) as error:
        made(score=raises, **{name: value})
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_attributes_that_are_meant():
    class Meant(sl.LayerStrategy):
        """Says what it is."""

        ROWS = 32
        _cached = None
        paper = "mine"
        rounding = round
        adaptive = True
        own_positions: ClassVar[Positions] = "keep"
        factor: ClassVar[float] = 2.0
        mode: Literal["a", "b"] = "a"

        class Inner:
            pass

        helper = functools.partial(max, 1)
        linear = nn.Identity

        @property
        def twice(self):
            return 2

        @functools.cached_property
        def thrice(self):
            return 3

        @staticmethod
        def free():
            return 4

        def score(self, ctx):
            return ctx.index.float()

    own = {field.name for field in dataclasses.fields(Meant)} - {field.name for field in dataclasses.fields(sl.FastV)}
    assert own == {"mode"} and Meant(keep=4).thrice == 3
    assert sl.register("meant")(Meant) is Meant


# What is registered.


def scores(self, ctx): ...


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ({"scores": scores}, ["Mine defines none of score, select, reduce", "did you mean score?"]),
        ({"Score": scores}, ["did you mean score?"]),
        ({"selects": scores}, ["did you mean select?"]),
        ({}, ["so it cannot decide"]),
        ({"layers": lambda self, depth: [2]}, ["so it cannot decide"]),
    ],
)
def test_a_class_that_decides_nothing(body, parts):
    with pytest.raises(sl.StrategyError) as error:
        sl.register("mine")(made(**body))
    assert all(part in str(error.value) for part in parts) and "mine" not in sl.available()


def test_a_tower_strategy_must_merge():
    cls = type("Mine", (sl.TowerStrategy,), {"score": scores})
    with pytest.raises(sl.StrategyError, match="defines none of merge"):
        sl.register("mine")(cls)
    sl.register("mine")(type("Mine", (sl.TowerStrategy,), {"merge": scores}))


def test_an_inherited_score_will_do():
    sl.register("mine")(type("Mine", (sl.FastV,), {}))
    assert sl.get("mine", keep=4).layer == 2


def test_what_is_no_strategy():
    def method(ctx): ...

    class Guest:
        def compute_scores(self): ...

    with pytest.raises(sl.StrategyError, match=r"method is no strategy.*class MyMethod"):
        sl.register("mine")(method)
    with pytest.raises(sl.StrategyError, match=r"Guest is no strategy.*seeless\.vtr\.register_strategy"):
        sl.register("mine")(Guest)
    with pytest.raises(sl.StrategyError, match=r'write @sl\.register\("my_method"\) above Mine'):
        sl.register(made(score=scores))
    with pytest.raises(sl.StrategyError, match="above method"):
        sl.register(method)
    assert "mine" not in sl.available()


def tower_merge(**more):
    def merge(self, keys, sizes, count):
        mask = torch.ones(keys.shape[:2], dtype=torch.bool)
        mask[:, :count] = False
        place = torch.arange(count).expand(len(keys), -1)
        return sl.Merge(**{"mask": mask, "source": place, "slot": place * 0 + count, "weight": place + 0.5, **more})

    return merge


@pytest.mark.parametrize(
    ("merge", "parts"),
    [
        (tower_merge(weight=torch.full((1, 8), torch.nan)), ["8 weights that are NaN"]),
        (tower_merge(mask=torch.ones(1, 16, dtype=torch.bool)), ["keeps 8 tokens more than its budget of 8"]),
        (tower_merge(slot=torch.zeros(1, 8).long()), ["gives weight to 8 slots whose tokens leave"]),
        (lambda self, keys, sizes, count: None, ["Mine.merge gave None; is a return missing?"]),
    ],
)
def test_mergers_in_the_tower(tiny, merge, parts):
    cls = type("Mine", (sl.TowerStrategy,), {"__module__": __name__, "merge": merge})
    refused(tiny, cls, "Mine, before tower layer 0", *parts, keep=8, first=0)


def test_an_exception_in_the_tower(tiny):
    cls = type("Mine", (sl.TowerStrategy,), {"merge": lambda self, keys, sizes, count: boom(keys)})
    error = refused(tiny, cls, error=KeyError, keep=8, first=0)
    assert origin_of(error) == f"{FILE}:{BOOM}, in boom of Mine, before tower layer 0"
