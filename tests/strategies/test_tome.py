"""ToMe: what it merges, what the whole tower makes of it, and what it refuses."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import seeless as sl
from fake_context import fake_context, kept
from oracle import MaskOracle, turn_of
from seeless.core.host import CACHE
from seeless.models import check_strategy, describe
from tinies import IMAGE, RAGGED, RAGGED_VIDEO, TINIES, VIDEO, make_inputs
from tiny_models import BACKENDS
from tower_oracle import TowerOracle, cosine

BY_NAME = {tiny.name: tiny for tiny in TINIES}
LLAVA, SIGLIP = BY_NAME["llava-llama-mha"], BY_NAME["paligemma"]
MASKED = ("llava-llama-mha", "paligemma", "llava_onevision", "smolvlm", "gemma3", "llava-pixtral", "mistral3")
UNMASKED = ("internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "exaone4_5")
REFUSED = {
    "gemma4": "padding behind them in the tower",
    "gemma4-small": "padding behind them in the tower",
    "granite4_vision": "whole windows of their patches",
    "lfm2_vl": "filled up to equally many patches",
    "lfm3_vl": "convolve over the grid of patches",
    "minicpmv4_6": "makes one patch of four by itself",
    "minicpmv4_7": "makes one patch of four by itself",
    "vipllava": "outputs of several tower layers",
    **{tiny.name: "shows no attention" for tiny in TINIES if tiny.unread},
}
MERGED_FRAMES = [("ernie4_5_vl_moe", "video"), ("kimi_k25", "video")]  # of several one is made behind the tower
ALL = [(tiny, kind) for tiny in TINIES if tiny.name not in REFUSED for kind in tiny.kinds]
CASES = [(tiny, kind) for tiny, kind in ALL if (tiny.name, kind) not in MERGED_FRAMES]


def case_id(case):
    return "-".join(map(str, case))


def rows_of(kind):
    return RAGGED_VIDEO if kind == "video" else RAGGED


# What is decided.


@given(st.integers(1, 3), st.integers(2, 14), st.data())
def test_merging_is_that_of_lists(units, tokens, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    count = data.draw(st.integers(0, tokens // 2))
    keys = torch.randn(units, tokens, 4, generator=generator, dtype=torch.float64)
    values = torch.randn(units, tokens, 3, generator=generator, dtype=torch.float64)
    sizes = torch.randint(1, 9, (units, tokens), generator=generator).double()
    merge = sl.ToMe(keep=0.5).merge(keys, sizes, count)
    merged = merge.values(values)
    for unit in range(units):
        own, x, size = keys[unit].tolist(), values[unit].tolist(), sizes[unit].tolist()
        edges = []
        for a in range(0, tokens, 2):
            best = max(range(1, tokens, 2), key=lambda b: (cosine(own[a], own[b]), -b))
            edges.append((-cosine(own[a], own[best]), a, best))
        groups = {i: [i] for i in range(tokens)}
        for _, a, b in sorted(edges)[:count]:
            groups[b] += groups.pop(a)
        assert merge.mask[unit].nonzero()[:, 0].tolist() == sorted(groups)
        for receiver, members in groups.items():
            total = sum(size[i] for i in members)
            want = [sum(size[i] * x[i][d] for i in members) / total for d in range(3)]
            assert merged[unit, receiver].tolist() == pytest.approx(want, abs=1e-12)
            if len(members) == 1:
                assert torch.equal(merged[unit, receiver], values[unit, receiver])


@given(st.integers(1, 700), st.integers(1, 30), st.floats(0.01, 1.0))
def test_a_schedule_ends_at_the_budget_and_halves_at_most(tokens, steps, share):
    strategy = sl.ToMe(keep=share)
    want = max(1, round(tokens * share))
    if tokens > want * 2**steps:
        least = math.ceil(tokens / 2**steps)
        with pytest.raises(sl.BudgetError, match=f"keep={least}$"):
            strategy.counts(tokens, steps)
        strategy = sl.ToMe(keep=least)
        want = least
        if least > 1:
            with pytest.raises(sl.BudgetError):
                sl.ToMe(keep=least - 1).counts(tokens, steps)
    counts = strategy.counts(tokens, steps)
    assert len(counts) == steps and counts[-1] == want
    for before, after in zip([tokens, *counts], counts, strict=False):
        assert 0 <= before - after <= before // 2
    drops = [before - after for before, after in zip([tokens, *counts], counts, strict=False)]
    if steps * 2 * max(drops) <= tokens:  # nothing in the way of an even spread
        assert max(drops) - min(drops) <= 1


def test_llava_loses_as_many_before_every_layer():
    assert sl.ToMe(keep=0.25).counts(576, 22)[:3] == [557, 537, 518]
    assert sl.ToMe(keep=136).counts(576, 22) == [576 - 20 * i for i in range(1, 23)]


def test_of_every_group_the_first_stays():
    groups = torch.tensor([[4, 4, 2, 3, 4, 2], [0, 1, 2, 3, 4, 5]])
    context = fake_context(3, 2, 6, layer=0, tower_groups=groups)
    assert kept(sl.ToMe(keep=0.5).reduce(context)) == [[0, 2, 3], [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    "knobs", [{"first": -1}, {"first": 1.5}, {"scope": "row"}, {"scope": "image"}, {"threshold": 0.5}, {"keep": [0.5]}]
)
def test_impossible_fields_are_refused(knobs):
    with pytest.raises(sl.BudgetError):
        sl.ToMe(**{"keep": 0.5, **knobs})


# The whole tower.


def tower_and_report(model, untouched, strategy, inputs, kinds=("image",)):
    """Both models' features per kind, the report, and the oracle's groups."""

    def seen(base):
        found = {}
        for kind in ("image", "video"):
            if (encode := getattr(base, f"get_{kind}_features", None)) is not None:

                def keeping(*args, kind=kind, encode=encode, **kwargs):
                    out = encode(*args, **kwargs)
                    found.setdefault(kind, out.pooler_output)
                    return out

                vars(base)[f"get_{kind}_features"] = keeping
        return found

    with sl.apply(model, strategy) as run:
        before = {k: v for k, v in vars(model.model).items() if k.startswith("get_")}
        have = seen(model.model)
        model(**inputs)
        vars(model.model).update(before)
    with TowerOracle(untouched, strategy) as oracle:
        before = {k: v for k, v in vars(untouched.model).items() if k.startswith("get_")}
        want = seen(untouched.model)
        untouched(**inputs)
        for name in ("get_image_features", "get_video_features"):
            vars(untouched.model).pop(name, None)
        vars(untouched.model).update(before)
    return have, want, run.report, oracle.groups


# In one tiny the two most similar pairs are as similar but for rounding: a tie here, and none to exact numbers.
NEAR_TIE = "qwen3_omni_moe_thinker"


@pytest.mark.parametrize("case", [case for case in CASES if case[0].name != NEAR_TIE], ids=case_id)
@torch.no_grad()
def test_features_are_the_plain_towers(tiny, case):
    """At every place, whether its token stays or not."""
    (own, kind), strategy = case, sl.ToMe(keep=0.6)
    model, untouched = tiny(own, "eager"), tiny(own, "untouched")
    inputs = make_inputs(untouched, own, rows_of(kind))
    have, want, _, _ = tower_and_report(model, untouched, strategy, inputs)
    assert set(have) == set(want)
    for kind in want:
        for mine, theirs in zip(have[kind], want[kind], strict=True):
            torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=0)


class Deep:
    """A tiny with a deeper tower."""

    def __init__(self, own, layers=7):
        self.own, self.layers = own, layers

    def build(self, backend, dtype=torch.float32):
        config = self.own.config

        def deeper():
            made = config()
            made.vision_config.num_hidden_layers = self.layers
            return made

        self.own.config = deeper
        try:
            return self.own.build(backend, dtype)
        finally:
            del self.own.config


@pytest.mark.parametrize("name", ["llava-llama-mha", "paligemma", "internvl", "mistral3"])
@pytest.mark.parametrize("proportional", [False, True], ids=["plain", "proportional"])
@pytest.mark.parametrize("keep", [0.25, 1, 0.1, 0.95])
@torch.no_grad()
def test_deep_towers_are_the_plain_towers(name, proportional, keep):
    own = BY_NAME[name]
    if proportional and name in UNMASKED:
        pytest.skip("its layers take no mask")
    model, untouched = Deep(own).build("sdpa"), Deep(own).build("eager")
    inputs = make_inputs(untouched, own, RAGGED)
    for first in (0, 1):
        strategy = sl.ToMe(keep=keep, first=first, proportional=proportional)
        have, want, report, groups = tower_and_report(model, untouched, strategy, inputs)
        for mine, theirs in zip(have["image"], want["image"], strict=True):
            assert (mine - theirs).abs().max() < 1e-4
        firsts, base = [], 0  # per picture, among the tokens of all pictures
        for picture in groups["image"]:
            firsts += sorted(min(group) for group in picture)
            base += sum(map(len, picture))
        stays, offset = [], 0
        for count, kept_ones in zip(report.n_before, report.stages[0].kept, strict=True):
            stays += [offset + i for i in kept_ones.tolist()]
            offset += count
        assert base == offset and stays == firsts


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@torch.no_grad()
def test_proportional_attention(tiny, name, backend):
    own = BY_NAME[name]
    model, untouched, strategy = tiny(own, backend), tiny(own, "untouched"), sl.ToMe(keep=0.6, proportional=True)
    inputs = make_inputs(untouched, own, RAGGED)
    with sl.apply(model, strategy) as run:
        have = model(**inputs).logits
    with sl.apply(model, sl.ToMe(keep=0.6)):
        assert (model(**inputs).logits - have).abs().max() > 1e-3
    turn = turn_of(run.report, inputs["input_ids"], IMAGE)
    with MaskOracle(untouched, [strategy], [turn], inputs["attention_mask"], tower=strategy):
        want = untouched(**inputs).logits
    text = (inputs["input_ids"] != IMAGE) & inputs["attention_mask"].bool()
    assert (have - want)[text].abs().max() < 5e-5


@pytest.mark.parametrize("name", UNMASKED)
def test_proportional_attention_is_refused_where_it_cannot_be_said(tiny, name):
    with pytest.raises(sl.UnsupportedModel, match=r"no attention mask.*set proportional=False"):
        sl.apply(tiny(BY_NAME[name], "sdpa"), sl.ToMe(keep=0.6, proportional=True))


def test_proportional_attention_is_refused_under_other_kernels(tiny):
    model = tiny(LLAVA, BACKENDS[-1])
    with pytest.raises(sl.UnsupportedModel, match=r"'fused' takes no mask.*set proportional=False"):
        sl.apply(model, sl.ToMe(keep=0.6, proportional=True))


@torch.no_grad()
def test_a_budget_of_all_tokens_changes_nothing(tiny):
    for name in ("llava-llama-mha", "qwen3_vl"):
        own = BY_NAME[name]
        model = tiny(own, "sdpa")
        inputs = make_inputs(model, own, RAGGED)
        before = model(**inputs).logits
        for keep in (1.0, 24):
            with sl.apply(model, sl.ToMe(keep=keep)) as run:
                assert torch.equal(model(**inputs).logits, before)
            before_it, after_it = run.report.flops_before, run.report.flops_after
            assert after_it.decoder == before_it.decoder and after_it.projector == before_it.projector
            assert (after_it.tower < before_it.tower) == (name != "qwen3_vl")  # whose last layer is read


@torch.no_grad()
def test_flops_of_the_tower_by_hand():
    model = Deep(LLAVA, 4).build("sdpa")  # the third layer's output is taken, so two mergers: 16 -> 12 -> 8
    with sl.apply(model, sl.ToMe(keep=8)) as run:
        model(**make_inputs(model, LLAVA, [["image:0", 3]]))
    weights = 4 * 32 * 32 + 2 * 32 * 48
    per_layer = {n: 2 * (n + 1) * weights + 4 * (n + 1) ** 2 * 32 for n in (16, 12, 8)}
    embedding = 2 * 16 * 3 * 8 * 8 * 32
    assert run.report.flops_before.tower == 4 * per_layer[16] + embedding
    assert run.report.flops_after.tower == per_layer[12] + per_layer[8] + per_layer[16] + embedding  # not the last
    assert run.report.flops_after.projector == run.report.flops_before.projector


# With other strategies, other forwards, other handles.


@pytest.mark.parametrize("name", ["llava-llama-mha", "llava_next-llama-mha", "qwen3_vl", "internvl"])
@pytest.mark.parametrize(
    ("others", "order"),
    [
        ([sl.PriorTR(keep=0.3, layer=3)], ["tome", "priortr"]),
        ([sl.VisPruner(keep=0.3)], ["tome", "vispruner"]),
        ([sl.FasterVLM(keep=0.4), sl.FastV(keep=0.2)], ["tome", "fastervlm", "fastv"]),
    ],
    ids=lambda x: "-".join(s if isinstance(s, str) else s.name for s in x),
)
@torch.no_grad()
def test_it_composes(tiny, name, others, order):
    own = BY_NAME[name]
    model, untouched, strategy = tiny(own, "sdpa"), tiny(own, "untouched"), sl.ToMe(keep=0.6)
    inputs = make_inputs(model, own, RAGGED)
    answers = []
    for given_order in ([strategy, *others], [*others, strategy]):
        with sl.apply(model, given_order) as run:
            answers.append(model(**inputs).logits)
        assert [stage.strategy for stage in run.report.stages] == order
    assert torch.equal(*answers)
    turn = turn_of(run.report, inputs["input_ids"], IMAGE)
    with MaskOracle(untouched, [strategy, *others], [turn], inputs["attention_mask"], tower=strategy):
        want = untouched(**inputs).logits
    text = (inputs["input_ids"] != IMAGE) & inputs["attention_mask"].bool()
    assert (answers[0] - want)[text].abs().max() < 5e-5


def test_two_of_them_are_refused(tiny):
    with pytest.raises(sl.BudgetError, match="one strategy can merge"):
        sl.apply(tiny(LLAVA, "sdpa"), [sl.ToMe(keep=0.9), sl.ToMe(keep=0.6)])


@pytest.mark.parametrize("name", ["llava-llama-mha", "llava_next-llama-mha", "qwen2_5_vl", "qwen3_vl"])
@torch.no_grad()
def test_beams(tiny, name):
    """`generate` runs the tower once and repeats its features."""
    own = BY_NAME[name]
    model, untouched, strategy = tiny(own, "sdpa"), tiny(own, "untouched"), sl.ToMe(keep=0.6)
    inputs = make_inputs(model, own, [RAGGED[0], RAGGED[3]])
    prompt = inputs["input_ids"].shape[1]
    with sl.apply(model, strategy) as run:
        out = model.generate(
            **inputs, max_new_tokens=5, num_beams=3, do_sample=False, return_dict_in_generate=True, output_scores=True
        )
    report = run.reports[0]
    for i in range(2):
        assert len({tuple(kept.tolist()) for kept in report.stages[0].kept[3 * i : 3 * i + 3]}) == 1
    report.stages[0].kept[:] = report.stages[0].kept[::3]
    full = {**own.extend(inputs, out.sequences.shape[1] - prompt), "input_ids": out.sequences}
    turn = turn_of(report, inputs["input_ids"], IMAGE)
    with MaskOracle(untouched, [strategy], [turn], full["attention_mask"], tower=strategy):
        logits = untouched(**full, use_cache=False).logits
    chances = logits.log_softmax(-1)[:, prompt - 1 : -1].gather(2, out.sequences[:, prompt:, None]).sum((1, 2))
    assert (chances / 5 - out.sequences_scores).abs().max() < 1e-4


@torch.no_grad()
def test_two_generations_interleave(tiny):
    own = BY_NAME["llava_next-llama-mha"]
    model = tiny(own, "sdpa")
    prompts = [make_inputs(model, own, [row]) for row in (RAGGED[0], RAGGED[1])]

    def steps(prompt):
        out = model(**prompt)
        for _ in range(4):
            yield out.logits[:, -1]
            token = out.logits[:, -1:].argmax(-1)
            out = model(input_ids=token, **{CACHE: out[CACHE]})

    with sl.apply(model, sl.ToMe(keep=0.6)):
        apart = [list(steps(prompt)) for prompt in prompts]
        mixed = list(zip(*map(steps, prompts), strict=True))
    for a, b in zip(zip(*apart, strict=True), mixed, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@torch.no_grad()
def test_features_of_another_handle_are_refused(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])
    pixels = inputs.pop("pixel_values")

    def encoded(strategy):
        with sl.apply(model, strategy):
            return {**inputs, "mm_encoder_outputs": {"image": model.model.get_image_features(pixels)}}

    plain, merged = encoded(sl.FastV(keep=0.5)), encoded(sl.ToMe(keep=0.6))
    for strategy, foreign in ((sl.ToMe(keep=0.6), plain), (sl.FastV(keep=0.5), merged), (sl.ToMe(keep=0.7), merged)):
        with sl.apply(model, strategy), pytest.raises(sl.InputError, match=r"were made with.*inside the vision tower"):
            model(**foreign)
    with sl.apply(model, sl.ToMe(keep=0.6)) as run:
        model(**merged)
    assert run.report.n_after == [10]


# Refusals.


@torch.no_grad()
def test_budgets_out_of_reach_are_refused(tiny):
    model = tiny(LLAVA, "sdpa")  # one merger
    with sl.apply(model, sl.ToMe(keep=0.25)), pytest.raises(sl.BudgetError, match="smallest possible here is keep=8"):
        model(**make_inputs(model, LLAVA, RAGGED))
    with pytest.raises(sl.BudgetError, match=r"first=1 leaves no layer.*tower layer 1.*merge before is 0"):
        sl.apply(model, sl.ToMe(keep=0.6, first=1))


@torch.no_grad()
def test_features_of_several_layers_are_refused(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    with sl.apply(model, sl.ToMe(keep=0.6)), pytest.raises(sl.UnsupportedModel, match="several tower layers"):
        model(**inputs, vision_feature_layer=[-2, -1])
    model.config.vision_feature_layer = [-2, -1]
    try:
        with pytest.raises(sl.UnsupportedModel, match="several tower layers"):
            sl.apply(model, sl.ToMe(keep=0.6))
        assert "several tower layers" in describe(model).strategies["tome"]
    finally:
        model.config.vision_feature_layer = -2


@torch.no_grad()
def test_the_layer_of_a_call_decides(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])
    with sl.apply(model, sl.ToMe(keep=5)) as run:  # two mergers, one more than by default
        model(**inputs, vision_feature_layer=-1)
    assert run.report.n_after == [5]


@torch.no_grad()
def test_pictures_with_padding_inside_are_refused(tiny):
    own = BY_NAME["smolvlm"]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, RAGGED[:1])
    inputs["pixel_attention_mask"] = inputs["pixel_attention_mask"].clone()
    inputs["pixel_attention_mask"][..., 24:, :] = 0
    with sl.apply(model, sl.ToMe(keep=0.6)), pytest.raises(sl.InputError, match="padding inside the tower"):
        model(**inputs)


@torch.no_grad()
def test_frames_whose_tokens_share_patches_are_refused():
    own = BY_NAME["llava_onevision"]
    config = own.config()
    config.vision_config.image_size = 20  # 5 x 5 patches, resampled to 3 x 3
    model = own.model_class(config).eval()
    ids = torch.tensor([[VIDEO] * (9 * 2 + 1) + [5, 6]])
    with sl.apply(model, sl.ToMe(keep=0.6)), pytest.raises(sl.UnsupportedModel, match="5 x 5 patches do not fall"):
        model(input_ids=ids, pixel_values_videos=torch.randn(1, 2, 3, 20, 20))


@pytest.mark.parametrize("name", [tiny.name for tiny in TINIES])
def test_info_says_that_it_works_or_why_not(tiny, name):
    model = tiny(BY_NAME[name], "sdpa")
    if name in REFUSED:
        with pytest.raises(sl.UnsupportedModel, match=REFUSED[name]):
            check_strategy(model, sl.ToMe(keep=0.6))
        return
    check_strategy(model, sl.ToMe(keep=0.6))
    if name in UNMASKED:
        with pytest.raises(sl.UnsupportedModel, match="set proportional=False"):
            check_strategy(model, sl.ToMe(keep=0.6, proportional=True))
