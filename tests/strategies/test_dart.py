"""DART: pivots and least-duplicated tokens against lists, the exact count, and the two signals on a model."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import cosine, fake_context, kept, unit_of
from seeless.core.host import CACHE
from tiny_models import IMAGE, VARIANTS, make_inputs


def loudest(keys, count):
    """Places of the largest L1 norms, ascending; `keys` a list of `[heads][dim]` per token."""
    norms = [sum(abs(x) for head in key for x in head) for key in keys]
    return sorted(sorted(range(len(keys)), key=lambda i: (-norms[i], i))[:count])


def order_of_choice(keys, text_keys, hidden, text_hidden, count, pivots, text_pivots, each):
    """methods.md, section 12: visual pivots, then of every pivot the tokens least like it, `each[pivot]` of them."""
    chosen = loudest(keys, min(pivots, count))
    guides = [hidden[i] for i in chosen] + [text_hidden[i] for i in loudest(text_keys, text_pivots)]
    for guide, quota in zip(guides, each(len(guides), len(chosen)), strict=True):
        rest = [i for i in range(len(hidden)) if i not in chosen]
        chosen += sorted(rest, key=lambda i: (cosine(hidden[i], guide), i))[:quota]
    return chosen


def exact(count):
    """The house's quotas: the released ones, ended at `count`; what they leave open, one more from the first pivots."""

    def each(guides, chosen):
        quotas, left = [], count - chosen
        more = max(0, left - count // guides * guides)
        for guide in range(guides):
            quotas.append(min(left, count // guides + (1 if guide < more else 0)))
            left -= quotas[-1]
        assert left == 0
        return quotas

    return each


def tensors(units, visual, text, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(units, *shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "keys": random(2, visual, 3),
        "text_keys": random(2, text, 3),
        "normed": random(visual, 5),
        "text_normed": random(text, 5),
        "text": random(text, 5),
    }


def by_hand(data, unit, count, pivots, text_pivots, each):
    keys, text_keys = (data[name][unit].transpose(0, 1).tolist() for name in ("keys", "text_keys"))
    hidden, text_hidden = (data[name][unit].tolist() for name in ("normed", "text_normed"))
    return order_of_choice(keys, text_keys, hidden, text_hidden, count, pivots, text_pivots, each)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 30),
    st.integers(0, 8),
    st.integers(1, 6),
    st.integers(0, 5),
    st.integers(0, 9999),
    st.data(),
)
def test_any_size(units, visual, text, pivots, text_pivots, seed, data):
    count = data.draw(st.integers(1, visual))
    seen = tensors(units, visual, text, seed)
    strategy = sl.Dart(keep=count, visual_pivots=pivots, text_pivots=text_pivots)
    decision = strategy.reduce(fake_context(count, units, visual, layer=2, **seen))
    for unit in range(units):
        want = by_hand(seen, unit, count, pivots, text_pivots, exact(count))
        assert len(want) == count
        assert kept(decision)[unit] == sorted(want)
        alone = strategy.reduce(fake_context(count, 1, visual, layer=2, **unit_of(seen, unit)))
        assert kept(alone) == [kept(decision)[unit]]


@pytest.mark.parametrize("count", [8, 64, 71, 128, 200])
def test_what_stays_is_the_beginning_of_the_released_choice(count):
    """int(T / 8) per pivot make 132 of 128: ours are the first T of those; 71 are 68 and three more."""
    seen = tensors(1, 300, 20, count)
    released = by_hand(seen, 0, count, 4, 4, lambda guides, chosen: [count // guides] * guides)
    assert len(released) == 4 + count // 8 * 8
    own = kept(sl.Dart(keep=count).reduce(fake_context(count, 1, 300, layer=2, **seen)))[0]
    assert len(own) == count
    if len(released) >= count:
        assert set(own) == set(released[:count])


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize(("visual", "count"), [(1, 1), (2, 1), (9, 9), (9, 3), (40, 20)])
def test_constant_input_and_small_units(value, visual, count):
    seen = {name: torch.full_like(tensor, value) for name, tensor in tensors(2, visual, 3, 0).items()}
    decision = sl.Dart(keep=count).reduce(fake_context(count, 2, visual, layer=2, **seen))
    assert decision.mask.sum(1).tolist() == [count] * 2
    assert kept(decision)[0] == kept(decision)[1]


def test_of_equal_tokens_the_first_stay():
    seen = {name: torch.ones_like(tensor) for name, tensor in tensors(1, 12, 3, 0).items()}
    assert kept(sl.Dart(keep=7).reduce(fake_context(7, 1, 12, layer=2, **seen))) == [list(range(7))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype):
    seen = tensors(2, 40, 6, 4, dtype)
    wide = {name: tensor.float() for name, tensor in seen.items()}
    contexts = [fake_context(17, 2, 40, layer=2, **t) for t in (seen, wide)]
    assert kept(sl.Dart(keep=17).reduce(contexts[0])) == kept(sl.Dart(keep=17).reduce(contexts[1]))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"visual_pivots": 0}, "visual_pivots=0 is not possible; give a whole number of at least 1"),
        ({"text_pivots": -1}, "text_pivots=-1 is not possible; give a whole number of at least 0"),
        ({"visual_pivots": 2.5}, "visual_pivots=2.5"),
        ({"text_pivots": True}, "text_pivots=True"),
        ({"threshold": 0.5}, "takes no threshold"),
        ({"layer": 0}, "first layer it can act before is 1"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.Dart(keep=0.5, **knobs)


# On a model.


class Looks(sl.LayerStrategy):
    """Test strategy: notes what it sees, and keeps the first token."""

    def select(self, ctx):
        Looks.seen = ctx.normed(), ctx.normed(tokens="text"), ctx.keys(), ctx.keys(tokens="text")
        mask = torch.zeros(ctx.index.shape, dtype=torch.bool)
        mask[:, 0] = True
        return sl.Keep(mask)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_final_norm_and_keys_of_the_text(tiny, variant):
    """The model's own hidden states through its own norm written out, and its own cache."""
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, [[5, "image:0", 9]])
    with sl.apply(model, Looks(keep=1, layer=3)):
        model(**inputs)
    out = untouched(**inputs, output_hidden_states=True, use_cache=True)
    norm = untouched.model.language_model.norm
    hidden = out.hidden_states[3][0].double()
    want = hidden / (hidden.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight.double()
    image = inputs["input_ids"][0] == IMAGE
    keys = out[CACHE].layers[2].keys[0]
    normed, text_normed, visual_keys, text_keys = (tensor[0] for tensor in Looks.seen)
    assert torch.allclose(normed.double(), want[image], atol=1e-4)
    assert torch.allclose(text_normed.double(), want[-9:], atol=1e-4)
    assert torch.allclose(visual_keys, keys[:, image], atol=1e-4)
    assert torch.allclose(text_keys, keys[:, -9:], atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("after", [9, 2, 0])
@torch.no_grad()
def test_on_a_model(tiny, variant, after):
    """Also with less text than text pivots, and with none."""
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, [[5, "image:0", *([after] if after else [])]])
    with sl.apply(model, sl.Dart(keep=11, layer=2)) as run:
        model(**inputs)
    out = untouched(**inputs, output_hidden_states=True, use_cache=True)
    image = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
    text = torch.arange(int(image[-1]) + 1, inputs["input_ids"].shape[1])
    keys = out[CACHE].layers[1].keys[0].double().transpose(0, 1)
    hidden = untouched.model.language_model.norm(out.hidden_states[2][0]).double()
    parts = keys[image], keys[text], hidden[image], hidden[text]
    want = order_of_choice(*(part.tolist() for part in parts), 11, 4, 4, exact(11))
    assert run.report.stages[0].kept[0].tolist() == sorted(want)
    assert run.report.stages[0].layer == 2 and run.report.n_after == [11]
    plain = model(**inputs).logits
    with sl.apply(model, sl.Dart(keep=1.0)):
        assert torch.equal(model(**inputs).logits, plain)
