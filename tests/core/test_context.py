"""What a strategy of one's own is shown: documented shapes, the model's own values, and clear refusals."""

from dataclasses import dataclass

import pytest
import torch
from by_hand import decoder_maps

import seeless as sl
from seeless import registry
from seeless.core.host import CACHE
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs

LLAVA, NEXT = VARIANTS[1], VARIANTS[4]
some = pytest.mark.parametrize("variant", (LLAVA, VARIANTS[3], NEXT), ids=str)


@pytest.fixture
def names():
    """Strategies registered in a test are forgotten afterwards."""
    sl.available()
    known = dict(registry._strategies)
    yield
    registry._strategies.clear()
    registry._strategies.update(known)


@dataclass
class Seen:
    """Everything a context showed at one stage for one group of units."""

    ctx: object
    visual: torch.Tensor
    hidden: torch.Tensor
    text: torch.Tensor
    embeds: torch.Tensor
    keys: torch.Tensor
    coming_keys: torch.Tensor
    attention: dict
    vision: tuple
    memory: dict

    @classmethod
    def all_of(cls, ctx):
        attention = {query: ctx.attention(queries=query) for query in ("last", "text", "anchor")}
        attention["rows"] = ctx.attention(queries=torch.tensor([0, 2, -1]))
        attention["coming"] = ctx.attention(layer=ctx.layer)
        attention["average"] = ctx.attention(queries="text", average=True)
        vision = ctx.vision_attention(), ctx.vision_features(), ctx.vision_keys()
        keys = ctx.keys(), ctx.keys(ctx.layer)
        return cls(ctx, ctx.visual, ctx.hidden, ctx.text, ctx.embeds, *keys, attention, vision, dict(ctx.memory))


def curious(seen):
    class Curious(sl.LayerStrategy):
        """Looks at everything."""

        weight: float = 0.5

        def score(self, ctx):
            seen.append(Seen.all_of(ctx))
            ctx.memory[ctx.stage_index] = ctx.memory.get(ctx.stage_index, 0) + len(ctx.visual)
            return ctx.visual.norm(dim=-1) + self.weight * ctx.embeds.mean(-1) + ctx.text.mean() + ctx.hidden.mean()

    return Curious


@some
@torch.no_grad()
def test_documented_shapes(tiny, names, variant):
    """Two rows with an equal image each make two units of one group; then what is left of them."""
    seen = []
    sl.register("curious")(curious(seen))
    assert "curious" in sl.available()
    model = tiny(variant, "sdpa")
    rows = [[5, "image:0", 9], [5, "image:2", 9]] if variant.family == "llava" else [[5, "image:0", 9]] * 2
    inputs = make_inputs(model, variant, rows)
    with sl.apply(model, "curious", keep=[8, 4], layer=[2, 4], scope="crop", weight=0.1) as run:
        model(**inputs)
    kv, seq = variant.kv_heads, inputs["input_ids"].shape[1]
    for one in seen:
        ctx = one.ctx
        units, n = ctx.index.shape
        stage = ctx.stage_index
        length = seq if stage == 0 else seq - run.report.n_before[0] + run.report.stages[0].n_after[0]
        assert (ctx.layer, ctx.n_keep) == ((2, min(8, n)), (4, 4))[stage]
        assert n == (ctx.n_original if stage == 0 else min(8, ctx.n_original))
        assert one.visual.shape == one.embeds.shape == (units, n, 64)
        assert one.hidden.shape == (units, length, 64) and one.text.shape == (units, 9, 64)
        assert one.keys.shape == one.coming_keys.shape == (units, kv, n, 16)
        counts = {"last": 1, "text": 9, "anchor": 1, "rows": 3, "coming": 1, "average": 1}
        assert {q: tuple(a.shape) for q, a in one.attention.items()} == {q: (units, 4, c, n) for q, c in counts.items()}
        assert all(a.dtype is torch.float32 for a in one.attention.values())
        attention, features, keys = one.vision
        assert attention.shape == (units, 4, n) and attention.dtype is torch.float32
        assert features.shape == (units, n, 32) and keys.shape == (units, 4, n, 8)
        for tensor in (one.visual, one.hidden, one.text, one.embeds, one.keys, features, keys):
            assert not tensor.requires_grad
    if variant.family == "llava":
        assert [len(one.visual) for one in seen] == [2, 2]
        assert [one.ctx.grid for one in seen] == [(1, 4, 4), None]
        assert seen[0].memory == {} and seen[1].memory == {0: 2}  # one dict for both stages
    else:
        assert {one.ctx.grid for one in seen if one.ctx.stage_index == 0} == {(1, 4, 4), (1, 3, 4)}
    assert all(one.ctx.grid is None for one in seen if one.ctx.stage_index == 1 and one.ctx.n_original > 8)


@some
@torch.no_grad()
def test_the_models_own_values(tiny, variant):
    """Everything at the first stage against the untouched model; `index` and places after the cut at the second."""
    seen, model, untouched = [], tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, [[5, "image:0", 9]])
    columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
    plain = untouched(**inputs, output_hidden_states=True)
    maps = decoder_maps(untouched, inputs)
    tower, own = [], untouched.model.vision_tower
    layers = getattr(own, "encoder", None) or own.vision_model.encoder
    hook = layers.layers[1].self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: tower.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    untouched(**inputs)
    hook.remove()

    scope = "crop" if variant.family == "llava" else "row"  # newlines show no patch

    class Spy(sl.LayerStrategy):
        def score(self, ctx):
            seen.append((ctx, ctx.visual, ctx.hidden, ctx.text, ctx.embeds, ctx.keys()))
            seen[-1] += ({q: ctx.attention(queries=q) for q in ("last", "text", "anchor")},)
            seen[-1] += (ctx.attention(queries=torch.tensor([3, -2])), ctx.attention("text", average=True))
            if scope == "crop":
                seen[-1] += (ctx.vision_features(), ctx.vision_keys(), ctx.vision_attention())
            return -ctx.index.float()  # keep the first

    with sl.apply(model, Spy(keep=[8, 4], layer=[2, 4], scope=scope)):
        cache = model(**inputs)[CACHE]

    ctx, visual, hidden, text, embeds, keys, attention, rows, average, *vision = seen[0]
    states = plain.hidden_states
    near = {"atol": 2e-4, "rtol": 1e-4}
    assert torch.allclose(visual[0], states[2][0, columns], **near)
    assert torch.allclose(hidden, states[2], **near)
    assert torch.allclose(text[0], states[2][0, columns[-1] + 1 :], **near)
    assert torch.allclose(embeds[0], states[0][0, columns], **near)
    assert torch.allclose(keys[0], plain[CACHE].layers[1].keys[0, :, columns], **near)
    after, last = int(columns[-1]) + 1, hidden.shape[1] - 1
    want = {"last": [last], "text": list(range(after, last + 1)), "anchor": [after]}
    for query, asked in want.items():
        assert torch.allclose(attention[query][0].double(), maps[1][0][:, asked][:, :, columns], atol=1e-5)
    assert torch.allclose(rows[0].double(), maps[1][0][:, [3, last - 1]][:, :, columns], atol=1e-5)
    assert torch.allclose(average, attention["text"].mean(2, keepdim=True), atol=1e-6)
    if vision:
        features, vision_keys, scores = vision
        out = own(inputs["pixel_values"], output_attentions=True, output_hidden_states=True)
        assert torch.allclose(features, out.hidden_states[-2][:, 1:], **near)
        project = layers.layers[1].self_attn.k_proj
        assert torch.allclose(vision_keys, project(tower[0]).view(1, 17, 4, 8).transpose(1, 2)[:, :, 1:], **near)
        assert torch.allclose(scores, out.attentions[1][:, :, 0, 1:], atol=1e-5)

    ctx, visual, hidden, text, embeds, keys, *_ = seen[1]
    assert ctx.index.tolist() == [list(range(8))] and ctx.n_original == len(columns)
    assert hidden.shape[1] == inputs["input_ids"].shape[1] - len(columns) + 8
    assert torch.equal(visual[0], hidden[0, 5:13]) and torch.equal(text[0], hidden[0, 13:])
    assert torch.allclose(embeds[0], states[0][0, columns[:8]], **near)
    assert torch.equal(keys[0], cache.layers[3].keys[0, :, 5:13])


@torch.no_grad()
def test_memory_lives_for_one_prefill_of_one_strategy(tiny):
    seen = []

    class Remembering(sl.LayerStrategy):
        def score(self, ctx):
            seen.append((self.layer, ctx.stage_index, sorted(ctx.memory)))
            ctx.memory[ctx.stage_index] = True
            return ctx.visual[..., 0]

    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])
    first, second = Remembering(keep=[0.9, 0.8], layer=[1, 3]), Remembering(keep=0.7, layer=4)
    with sl.apply(model, [first, second]):
        model(**inputs)
        model(**inputs)
    assert seen == [([1, 3], 0, []), ([1, 3], 1, [0]), (4, 0, [])] * 2


@torch.no_grad()
def test_units_of_different_surroundings_come_in_groups_of_their_own(tiny):
    """A strategy always sees dense tensors: no padding, whatever the batch."""
    seen = []
    model = tiny(LLAVA, "sdpa")
    with sl.apply(model, curious(seen)(keep=0.5, layer=2, scope="image")) as run:
        model(**make_inputs(model, LLAVA, RAGGED))
    assert sorted((len(one.visual), one.hidden.shape[1], one.text.shape[1]) for one in seen) == [
        (1, 21, 3),
        (1, 30, 9),
        (2, 45, 6),
    ]
    assert run.report.n_after == [8, 16, 0, 8]


class TextMatch(sl.EntryStrategy):
    """The patches most like the text after the image, before the language model."""

    def score(self, ctx):
        return (ctx.visual @ ctx.text.mean(1)[..., None])[..., 0]


class WholeMatch(sl.EntryStrategy):
    """The patches most like the whole prompt."""

    def score(self, ctx):
        return (ctx.visual @ ctx.hidden.mean(1)[..., None])[..., 0]


@pytest.mark.parametrize("strategy", [TextMatch(keep=4), WholeMatch(keep=4)], ids=["text", "hidden"])
@torch.no_grad()
def test_text_at_the_entry_is_the_rows_own_whatever_the_batch(tiny, strategy):
    model = tiny(LLAVA, "sdpa")
    with sl.apply(model, strategy) as run:
        model(**make_inputs(model, LLAVA, RAGGED))
        together = run.report.stages[0]
        for index in (0, 1, 3):
            model(**make_inputs(model, LLAVA, [RAGGED[index]]))
            alone = run.report.stages[0]
            assert torch.allclose(together.scores[index], alone.scores[0], atol=1e-4)
            assert together.kept[index].tolist() == alone.kept[0].tolist()


def one_off(score):
    class OneOff(sl.LayerStrategy):
        pass

    OneOff.score = score
    return OneOff(keep=4)


@pytest.mark.parametrize(
    "score",
    [
        lambda self, ctx: ctx.visual,
        lambda self, ctx: ctx.visual[..., 0][:, :-1],
        lambda self, ctx: ctx.visual[0, :, 0],
        lambda self, ctx: ctx.attention().mean(1),
    ],
)
@torch.no_grad()
def test_a_score_of_the_wrong_shape(tiny, score):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])
    with (
        sl.apply(model, one_off(score)),
        pytest.raises(sl.StrategyError, match=r"OneOff\.score returned \[.*for \[1, 16\].*one score per visual token"),
    ):
        model(**inputs)


@pytest.mark.parametrize(
    ("score", "error", "message"),
    [
        (lambda self, ctx: ctx.attention(layer=4), sl.InputError, "layer 4 cannot be read.*available: 1, 2"),
        (lambda self, ctx: ctx.attention(layer=0), sl.InputError, "layer 0 cannot be read"),
        (lambda self, ctx: ctx.keys(5), sl.InputError, "layer 5 cannot be read"),
        (lambda self, ctx: ctx.attention("first"), sl.InputError, "queries='first' is not possible; use 'last'"),
        (sl.LayerStrategy.score, NotImplementedError, "must define score, select or reduce"),
    ],
)
@torch.no_grad()
def test_what_cannot_be_read(tiny, score, error, message):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])
    with sl.apply(model, one_off(score)), pytest.raises(error, match=message):
        model(**inputs)


@torch.no_grad()
def test_no_decoder_layer_can_be_read_at_the_entry(tiny):
    class Early(sl.EntryStrategy):
        def score(self, ctx):
            return ctx.attention().mean((1, 2))

    model = tiny(LLAVA, "sdpa")
    with sl.apply(model, Early(keep=4)), pytest.raises(sl.InputError, match="the entry comes before all layers"):
        model(**make_inputs(model, LLAVA, [RAGGED[0]]))


@torch.no_grad()
def test_nothing_can_be_asked_after_the_stage(tiny):
    """Other tokens stand there then; what was asked in time stays."""
    seen = []

    class Late(sl.LayerStrategy):
        def score(self, ctx):
            seen.append((ctx, ctx.text))
            if len(seen) == 2:
                for question in ("hidden", "visual", "places", "embeds"):
                    with pytest.raises(sl.StrategyError, match=f"asked for {question} after its stage"):
                        getattr(seen[0][0], question)
                with pytest.raises(sl.StrategyError, match="asked for attention after its stage"):
                    seen[0][0].attention("last")
                assert seen[0][0].text is seen[0][1]
            return -(ctx.index % 2).float()

    model = tiny(LLAVA, "sdpa")
    with sl.apply(model, Late(keep=[0.5, 0.25], layer=[2, 4])):
        model(**make_inputs(model, LLAVA, RAGGED[:1]))
    assert len(seen) == 2


@torch.no_grad()
def test_newlines_have_no_vision_attention(tiny):
    """What reads the tower says so in `tower`; then all tiles' patches are ranked together, and newlines leave."""
    model = tiny(NEXT, "sdpa")
    inputs = make_inputs(model, NEXT, [RAGGED[0]])
    with sl.apply(model, "fastervlm", keep=4, scope="image") as run:
        model(**inputs)
    assert run.report.n_after == [4]
    with sl.apply(model, "fastervlm", keep=1.0, scope="crop") as run:
        model(**inputs)
    whole = run.report.stages[0]
    with sl.apply(model, "fastervlm", keep=10**6, scope="image") as run:
        model(**inputs)
    scores = run.report.stages[0].scores[0]
    newlines = scores.isnan()
    assert 0 < int(newlines.sum()) == whole.n_before[0] - run.report.n_after[0]

    class Undeclared(sl.EntryStrategy):
        def score(self, ctx):
            return ctx.vision_attention().mean(1)

    with sl.apply(model, Undeclared(keep=4)), pytest.raises(sl.InputError, match="use scope='crop'"):
        model(**inputs)


def test_a_context_says_what_it_is(tiny):
    seen = []
    model = tiny(LLAVA, "sdpa")
    with torch.no_grad(), sl.apply(model, curious(seen)(keep=4)):
        model(**make_inputs(model, LLAVA, [RAGGED[0]]))
    with pytest.raises(AttributeError):
        seen[0].ctx.layer = 3
    assert "layer=2" in repr(seen[0].ctx) and "sources" not in repr(seen[0].ctx)


@torch.no_grad()
def test_a_strategy_without_a_name_is_reported_by_its_class(tiny):
    class Nameless(sl.LayerStrategy):
        def score(self, ctx):
            return ctx.visual[..., 0]

    model = tiny(LLAVA, "sdpa")
    with sl.apply(model, Nameless(keep=4)) as run:
        model(**make_inputs(model, LLAVA, [RAGGED[0]]))
    assert run.report.stages[0].strategy == "Nameless" and "(Nameless)" in str(run.report)
