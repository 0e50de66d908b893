"""Guests, verbatim, on every family: backends, batches, the mask oracle, and what they are shown."""

import guests
import pytest
import torch
from matrix import CASES, FIRST_LAYER_RECURRENT, PLACEHOLDERS, case_id, gap, rows_of
from plan import FULL, differs, one_backend

import seeless as sl
from oracle import oracle_of, turn_of
from seeless.core.host import CACHE
from seeless.vtr import VTRConfig, get_strategy
from tinies import TINIES, make_inputs
from tiny_models import BACKENDS

CONFIGS = {
    "mymethod": VTRConfig(strategy="mymethod", prune_layer=2, keep_ratio=0.5),
    "shallow_router": VTRConfig(strategy="shallow_router", prune_layer=[2, 4], keep_ratio=[0.6, 0.5]),
    "cached": VTRConfig(strategy="cached", prune_layer=[1, 3, 6], keep_ratio=[0.8, 0.6, 0.5]),
    "hidden": VTRConfig(strategy="hidden", prune_layer=3, keep_tokens=5),
    "difference": VTRConfig(strategy="difference", prune_layer=3, keep_ratio=0.4),
    "tempered": guests.TemperedConfig(strategy="tempered", keep_tokens=6, prune_layer=2, my_temperature=0.3),
    "merging": VTRConfig(strategy="merging", prune_layer=[2, 4], keep_ratio=[0.4, 0.5]),
    "nothing": VTRConfig(strategy="mymethod", prune_layer=[2, 4], keep_tokens=[4, 0]),
    "plain": VTRConfig(strategy="plain", prune_layer=[3], keep_ratio=0.3),
}
BUILT_IN = {
    "priortr": VTRConfig(strategy="priortr", prune_layer=[2, 4], keep_ratio=0.6),
    "priortr_2f": VTRConfig(strategy="priortr_2f", prune_layer=3, keep_ratio=0.4),
    "fastv": VTRConfig(strategy="fastv", prune_layer=3, keep_ratio=0.4, query_aggregation="question"),
    "clse": VTRConfig(strategy="clse", keep_ratio=0.7, clse_grid_t=4, clse_grid_h=17, clse_grid_w=1),
    "sparsevlm": VTRConfig(strategy="sparsevlm", prune_layer=2, keep_ratio=0.4),
    "vispruner": VTRConfig(strategy="vispruner", keep_ratio=0.4),
}
CONFIGS |= BUILT_IN
ADDS = ("merging",)
NEW_TOKENS = 3
EVERYWHERE = ("mymethod", "shallow_router", "cached", "merging", "nothing")
COPIED = ("llava-llama", "qwen2_vl", "qwen3_vl", "internvl", "video_llava", "paligemma")
FLOWS = ("mymethod", "merging")  # a guest that drops, and one that adds: on every family in the short plan
PAIRS = [
    (case, name)
    for case in CASES
    for name in CONFIGS
    if name in EVERYWHERE or (case[0].name.startswith(COPIED) and not case[0].name.endswith(("_moe", "2")))
]


def pairs(short=lambda case, name: True):
    """All pairs; those that `short` says are in the short plan."""
    rows = [
        pytest.param(case, name, id=f"{case_id(case)}-{name}", marks=() if short(case, name) else FULL)
        for case, name in PAIRS
    ]
    return pytest.mark.parametrize(("case", "name"), rows)


def backends_of(case, name):
    """In the short plan: all of them on families that differ; else one."""
    return BACKENDS if differs(case) else one_backend(case, name, list(CONFIGS).index(name))


def in_turn(case, name):
    """A third of the pairs, another one for the next family and the next guest, and the above."""
    return name in FLOWS or differs(case) or (CASES.index(case) + list(CONFIGS).index(name)) % 3 == 0


def test_the_short_plan():
    """Guests that drop and that add meet every family, every other three that differ at least; each every backend."""
    for case in CASES:
        assert all(in_turn(case, name) for name in FLOWS)
    for name in CONFIGS:
        cases = [case for case, other in PAIRS if other == name]
        assert len({case[0].name.split("-")[0] for case in cases if in_turn(case, name)}) >= 3
        assert {backend for case in cases for backend in backends_of(case, name)} == set(BACKENDS)


def pictures(row):
    return [part for part in row if isinstance(part, str)]


def kept_of(report, row=None):
    rows = range(len(report.n_before)) if row is None else [row]
    return [[stage.kept[i].tolist() for i in rows] for stage in report.stages]


def refuses(own, name, backend, model, inputs):
    """Whether the pair cannot work; then it says so."""
    blind = name in ("difference", "priortr", "priortr_2f") and own.name.startswith("paligemma")
    reason = "blind to the question" if blind else gap(own, name, backend)
    layers = CONFIGS[name].prune_layer
    if own.name == "gemma4-small" and (max(layers) if isinstance(layers, list) else layers or 0) > 3:
        reason = "take keys and values of earlier ones"
    if name == "vispruner" and own.name == "video_llava" and "pixel_values_videos" in inputs:
        reason = "show no patch"  # frames keep their class tokens
    if name == "cached" and own.name.startswith(FIRST_LAYER_RECURRENT):
        reason = "the first layer with attention"
    if name in ADDS and own.name.startswith("ernie4_5_vl"):
        reason = "something of their own for every token"
    if reason is None:
        return False
    with pytest.raises((sl.UnsupportedModel, sl.InputError), match=reason), sl.apply(model, CONFIGS[name]):
        model(**inputs)
    return True


@pairs(in_turn)
@torch.no_grad()
def test_backends_and_oracle(tiny, case, name, whole):
    """Prefill and decode are those of the mask oracle, on every backend; those that add tokens agree on backends."""
    (own, kind), untouched = case, tiny(case[0], "untouched")
    want = kept = first = None
    for backend in BACKENDS if whole else backends_of(case, name):
        model = tiny(own, backend)
        inputs = make_inputs(model, own, rows_of(kind))
        if refuses(own, name, backend, model, inputs):
            continue
        prompt = inputs["input_ids"].shape[1]
        text = ~torch.isin(inputs["input_ids"], torch.tensor(PLACEHOLDERS)) & inputs["attention_mask"].bool()
        with sl.apply(model, CONFIGS[name]) as run:
            out = model.generate(
                **inputs,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
            whole = model(**inputs).logits
            strategies = run.strategies
        steps = torch.stack(out.logits, 1)
        if first is None:
            first, kept = (whole, steps, out.sequences), kept_of(run.report)
            if name not in ADDS:
                full = {**own.extend(inputs, NEW_TOKENS), "input_ids": out.sequences}
                turn = turn_of(run.reports[0], inputs["input_ids"], PLACEHOLDERS)
                with oracle_of(untouched, strategies, [turn], full["attention_mask"]):
                    want = untouched(**full, use_cache=False).logits
        assert all(kept_of(report) == kept for report in run.reports)
        assert (whole - first[0])[text].abs().max() < 5e-5
        assert (steps - first[1]).abs().max() < 1e-4 and torch.equal(out.sequences, first[2])
        if want is not None:
            assert (whole - want[:, :prompt])[text].abs().max() < 5e-5
            assert (steps - want[:, prompt - 1 : -1]).abs().max() < 1e-4
        lengths = [x.keys.shape[-2] for x in out[CACHE].layers if getattr(x, "keys", None) is not None]
        assert len(set(lengths)) == 1  # caches of earlier layers are trimmed
        visual = torch.isin(inputs["input_ids"], torch.tensor(PLACEHOLDERS)).sum(1)
        rest = inputs["attention_mask"].sum(1) - visual
        assert lengths[0] == int((rest + torch.tensor(run.report.n_after)).max()) + NEW_TOKENS - 1


@pairs(in_turn)
@torch.no_grad()
def test_a_row_of_a_batch_equals_the_row_alone(tiny, case, name):
    model, (own, kind) = tiny(case[0], "sdpa"), case
    inputs = {side: make_inputs(model, own, rows_of(kind), side) for side in ("left", "right")}
    if refuses(own, name, "sdpa", model, inputs["left"]):
        return
    with sl.apply(model, CONFIGS[name]) as run:
        together = {side: model(**given).logits for side, given in inputs.items()}
        reports = list(run.reports)
        for i, row in enumerate(rows_of(kind)):
            alone = model(**make_inputs(model, own, [row])).logits[0]
            for side, given in inputs.items():
                real = given["attention_mask"][i].bool()
                assert (together[side][i][real] - alone).abs().max() < 5e-5
            if pictures(row):
                assert all(kept_of(report, i) == kept_of(run.report) for report in reports)


PRINTED = """
@register_strategy("mymethod")
class MyStrategy(PruningStrategy):
    def compute_scores(self, attention, image_token_range, config, **ctx):
        img_start, img_end = image_token_range
        return attention[:, :, -1, img_start:img_end].mean(dim=1).squeeze(0)

@register_strategy("router")
class RouterStrategy(PruningStrategy):
    def __init__(self):
        self.by_layer = {2: PriorTRStrategy(), 6: FastVStrategy()}     # ctx["layer_idx"] is the layer whose attention is read
    def compute_scores(self, attention, image_token_range, config, **ctx):
        return self.by_layer[ctx["layer_idx"]].compute_scores(attention, image_token_range, config, **ctx)
"""  # noqa: E501


@torch.no_grad()
def test_the_two_of_the_issue_as_printed(registry):
    exec("from seeless.vtr import *\n" + PRINTED, {})
    assert registry["mymethod"] is not guests.MyStrategy  # a name that is taken is overwritten
    assert registry["router"] is not guests.RouterStrategy
    check_router()


@torch.no_grad()
def test_the_router():
    check_router()


def check_router():
    """Its layers are 2 and 6; the embedded model has eight."""
    from seeless.tiny import load_tiny

    model, _ = load_tiny()
    ids = torch.tensor([[1, 5, *[model.config.image_token_id] * 144, 6, 7, 8]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 3, *[model.config.vision_config.image_size] * 2)}
    with sl.apply(model, VTRConfig(strategy="mymethod", prune_layer=2, keep_ratio=0.25)) as run:
        model(**inputs)
    with sl.apply(model, sl.FastV(keep=36, layer=2)) as native:
        model(**inputs)
    assert kept_of(run.report) == kept_of(native.report)
    routed = VTRConfig(strategy="router", prune_layer=[3, 7], keep_tokens=[50, 20])
    with sl.apply(model, routed) as run:
        model(**inputs)
    first, second = run.report.stages
    assert (first.layer, second.layer, first.n_after, second.n_after) == (3, 7, [50], [20])
    with sl.apply(model, VTRConfig(strategy="priortr", prune_layer=3, keep_tokens=50, query_aggregation="question")):
        model(**inputs)
    for strategy, layers, number in (("priortr", [3], 0), ("fastv", [7], 1)):
        with sl.apply(model, VTRConfig(strategy=strategy, prune_layer=layers, keep_tokens=50)) as alone:
            model(**inputs)
        if number == 0:
            assert torch.equal(alone.report.stages[0].scores[0], first.scores[0])
    with (
        sl.apply(model, VTRConfig(strategy="router", prune_layer=[3, 5], keep_tokens=50)),
        pytest.raises(sl.InputError, match="layer_idx is the layer whose attention is read"),
    ):
        model(**inputs)  # it has nothing for layer 4


# What they are shown.


def spying(base, seen):
    class Spy(base):
        def compute_scores(self, attention, image_token_range, config, **ctx):
            seen.append({"attention": attention, "range": image_token_range, "config": config, **ctx})
            start, end = image_token_range
            return torch.arange(end - start).float()

    return Spy


class QwenSpy(guests.VTRStrategy):
    seen: list = []
    selected: list = []
    pruned: list = []

    def prepare(self, hidden_states, config, context):
        self.seen.append({"prepared": hidden_states, "range": context["image_token_range"]})
        context["mine"] = len(self.seen)

    def compute_scores(self, attention, image_token_range, config, layer_idx=0, **context):
        self.seen.append({"layer_idx": layer_idx, "config": config, "range": image_token_range, **context})
        return torch.arange(image_token_range[1] - image_token_range[0]).float()

    def select_tokens(self, scores, num_tokens, config, layer_idx=0):
        self.selected.append((num_tokens, layer_idx))
        return super().select_tokens(scores, num_tokens, config, layer_idx)

    def post_prune(self, hidden_states, pruned_hidden_states, keep_indices, image_token_range, config, layer_idx, **c):
        self.pruned.append((hidden_states, pruned_hidden_states, keep_indices, image_token_range, layer_idx, c))
        return pruned_hidden_states


@pytest.fixture
def registry():
    """What a test registers is forgotten afterwards."""
    from seeless.vtr import VTR_REGISTRY

    before = dict(VTR_REGISTRY)
    yield VTR_REGISTRY
    VTR_REGISTRY.clear()
    VTR_REGISTRY.update(before)


def tiny_named(name):
    return next(own for own in TINIES if own.name.startswith(name))


@torch.no_grad()
def test_the_context_of_llava_guests(tiny, registry):
    """`layer_idx` is absolute, `hidden_states` what that layer gave, `cache` and `z_ref` as documented."""
    seen = []
    registry["spy"] = spying(guests.PruningStrategy, seen)
    own = tiny_named("llava-llama")
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    inputs = make_inputs(model, own, [[5, "image:0", 9], [2, "image:1", 3]])
    config = VTRConfig(strategy="spy", prune_layer=[4, 2], keep_tokens=[3, 9], ref_layers=[0, 1])
    with sl.apply(model, config):
        model(**inputs)
    assert [ctx["layer_idx"] for ctx in seen] == [1, 1, 3, 3] and [ctx["step"] for ctx in seen] == [1, 1, 0, 0]
    assert [ctx["range"] for ctx in seen] == [(5, 21), (2, 18), (5, 14), (2, 11)]
    assert [ctx["config"].keep_tokens for ctx in seen] == [9, 9, 3, 3]  # the entry of this cut
    assert [tuple(ctx["attention"].shape) for ctx in seen] == [(1, 4, n, n) for n in (30, 21, 23, 14)]
    assert seen[0]["cache"] is seen[2]["cache"] and seen[1]["cache"] is seen[3]["cache"]
    assert seen[0]["cache"] is not seen[1]["cache"]
    assert seen[0]["grid_hw"] == (4, 4) and "grid_hw" not in seen[2]
    assert [ctx["total_pruned_tokens"] for ctx in seen] == [0, 0, 7, 7]
    for i in range(2):
        real = inputs["attention_mask"][i].bool()
        states = untouched(**inputs, output_hidden_states=True).hidden_states
        assert (seen[i]["hidden_states"][0] - states[2][i, real]).abs().max() < 1e-5
        start, end = seen[i]["range"]
        assert (seen[i]["z_ref"] - states[1][i, real][start:end]).abs().max() < 1e-5  # the last reference wins
        assert seen[i + 2]["z_ref"].shape == (16, 64)
    with sl.apply(model, config):
        model(**inputs)
    assert seen[4]["cache"] is not seen[0]["cache"] and seen[4]["total_pruned_tokens"] == 0


@torch.no_grad()
def test_the_context_of_qwen_guests(tiny, registry):
    """`layer_idx` is the number of the cut as given; `prepare` once per prompt; `post_prune` after every cut."""
    registry["spy"] = QwenSpy
    QwenSpy.seen, QwenSpy.selected, QwenSpy.pruned = [], [], []
    own = tiny_named("qwen3_vl")
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    inputs = make_inputs(model, own, [[5, "image:0", 9]])
    with sl.apply(model, VTRConfig(strategy="spy", prune_layer=[4, 2, 2], keep_ratio=[0.5, 0.75, 0.1])) as run:
        model(**inputs)
    prepared, first, second = QwenSpy.seen
    assert (first["layer_idx"], second["layer_idx"]) == (1, 0) and run.report.n_after == [6]
    assert prepared["range"] == first["range"] == (6, 22) and second["range"] == (6, 18)
    assert first["mine"] == second["mine"] == 1 and "image_token_range" not in first
    assert first["config"].keep_ratio == [0.5, 0.75, 0.1]  # the lists, which it indexes itself
    assert QwenSpy.selected == [(16, 1), (12, 0)]
    layers = untouched.model.language_model.layers
    given = {}
    hooks = [
        layers[0].register_forward_pre_hook(lambda m, a, k: given.__setitem__("embeds", a[0]), with_kwargs=True),
        layers[1].register_forward_hook(lambda m, a, k, out: given.__setitem__("out", out), with_kwargs=True),
    ]
    untouched(**inputs)
    for hook in hooks:
        hook.remove()
    assert (prepared["prepared"] - given["embeds"]).abs().max() < 1e-5
    assert (first["hidden_states"] - given["out"]).abs().max() < 1e-4  # before DeepStack's features are added
    (hidden, pruned, kept, place, step, context), later = QwenSpy.pruned
    assert kept.tolist() == list(range(4, 16)) and place == (6, 18) and (step, later[4]) == (1, 0)
    assert torch.equal(hidden, first["hidden_states"]) and torch.equal(pruned[0, 6:18], hidden[0, 10:22])
    assert context["pruned_token_scores"].tolist() == [0, 1, 2, 3] and "hidden_states" not in context


@torch.no_grad()
def test_a_base_class_says_what_layer_idx_means(tiny, registry):
    """A class of LLaVA's kind may name `layer_idx` in its signature; one of Qwen's need not."""
    layers = []

    @guests.register_strategy("explicit")
    class Explicit(guests.PruningStrategy):
        def compute_scores(self, attention, image_token_range, config, layer_idx=None, hidden_states=None, **ctx):
            layers.append(layer_idx)
            return hidden_states[0, slice(*image_token_range), 0]

    @guests.register_strategy("implicit")
    class Implicit(guests.VTRStrategy):
        def compute_scores(self, attention, image_token_range, config, **context):
            layers.append(context["layer_idx"])
            return attention[0, 0, -1, slice(*image_token_range)]

    own = tiny_named("llava-llama")
    model = tiny(own, "sdpa")
    for name in ("explicit", "implicit"):
        with sl.apply(model, VTRConfig(strategy=name, prune_layer=[2, 4], keep_ratio=0.5)):
            model(**make_inputs(model, own, [[5, "image:0", 9]]))
    assert layers == [1, 3, 0, 1]


@torch.no_grad()
def test_text_between_images_counts_as_before_them(tiny, registry):
    seen = []
    registry["spy"] = spying(guests.PruningStrategy, seen)
    own = tiny_named("llava-llama")
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    inputs = make_inputs(model, own, [[3, "image:1", 4, "image:2", 6]])
    with sl.apply(model, VTRConfig(strategy="spy", prune_layer=2, keep_tokens=20)) as run:
        model(**inputs)
        found = seen[0]["attention"]
    assert seen[0]["range"] == (7, 39) and run.report.stages[0].kept[0].tolist() == list(range(12, 32))
    order = [*range(3), *range(19, 23), *range(3, 19), *range(23, 39), *range(39, 45)]
    untouched.set_attn_implementation("eager")
    want = untouched(**inputs, output_attentions=True).attentions[1][:, :, order][..., order]
    assert found.shape == want.shape


@torch.no_grad()
def test_one_object_for_all_cuts_and_calls(tiny, registry):
    made = []

    @guests.register_strategy("counted")
    class Counted(guests.MyStrategy):
        def __init__(self):
            made.append(self)

    own = tiny_named("llava-llama")
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[5, "image:0", 9]])
    with sl.apply(model, VTRConfig(strategy="counted", prune_layer=[2, 4], keep_ratio=0.5)):
        model(**inputs)
        model(**inputs)
    assert len(made) == 1 and type(get_strategy("counted")) is Counted and len(made) == 2


@torch.no_grad()
def test_what_a_guest_must_give_back(tiny, registry):
    own = tiny_named("llava-llama")
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[5, "image:0", 9]])

    def given(message, error=sl.InputError, **methods):
        registry["bad"] = type("Bad", (guests.MyStrategy,), methods)
        config = VTRConfig(strategy="bad", prune_layer=2, keep_tokens=4)
        with sl.apply(model, config), pytest.raises(error, match=message):
            model(**inputs)

    given(r"compute_scores gave shape \[1, 16\] for 16 .*squeezed", compute_scores=lambda *a, **k: torch.ones(1, 16))
    given("compute_scores gave a list", compute_scores=lambda *a, **k: [1.0] * 16)
    given("select_tokens gave .*places", select_tokens=lambda *a: torch.tensor([16]))
    given("select_tokens gave", select_tokens=lambda *a: torch.tensor([-1]))
    given("select_tokens gave", select_tokens=lambda *a: torch.ones(16, dtype=torch.bool))
    given("select_tokens gave", select_tokens=lambda *a: [1, 2])
    given("post_prune changed rows", post_prune=lambda self, hidden, pruned, *a, **k: pruned + 1)
    given("post_prune changed rows", post_prune=lambda self, hidden, pruned, *a, **k: pruned[:, 1:])
    given(
        "13 tokens were added where 12 of 16 leave",
        post_prune=lambda self, hidden, pruned, kept, place, *a, **k: torch.cat(
            [pruned[:, : place[1]], hidden[:, :13], pruned[:, place[1] :]], 1
        ),
    )
    registry["odd"] = type("Odd", (guests.MyStrategy,), {"select_tokens": lambda *a: torch.tensor([7, 3, 7])})
    with sl.apply(model, VTRConfig(strategy="odd", prune_layer=2)) as run:
        model(**inputs)
    assert run.report.stages[0].kept[0].tolist() == [3, 7]  # any order, each once


@pytest.mark.parametrize("own", [own for own in TINIES if own.name.startswith(COPIED)], ids=str)
@torch.no_grad()
def test_bfloat16_is_finite(own):
    model = own.build("sdpa", torch.bfloat16)
    for kind in own.kinds:
        inputs = make_inputs(model, own, rows_of(kind)[:2])
        for name, config in CONFIGS.items():
            if not refuses(own, name, "sdpa", model, inputs):
                with sl.apply(model, config):
                    assert model(**inputs).logits.isfinite().all(), name


@torch.no_grad()
def test_beside_other_strategies(tiny):
    """After a native one at the entry, and two guests of one kind with caches of their own."""
    own = tiny_named("llava-llama")
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[5, "image:0", 9], [3, "image:1", 4, "image:2", 6]])
    cached = VTRConfig(strategy="cached", prune_layer=[2, 4], keep_ratio=0.5)
    with sl.apply(model, [sl.VisPruner(keep=10), VTRConfig(strategy="hidden", prune_layer=1, keep_tokens=8)]) as run:
        model(**inputs)
    assert [stage.n_after for stage in run.report.stages] == [[10, 20], [8, 8]]
    with sl.apply(model, [cached, VTRConfig(strategy="cached", prune_layer=[5, 6], keep_ratio=0.5)]) as run:
        model(**inputs)
    assert [stage.n_after for stage in run.report.stages] == [[8, 16], [4, 8], [2, 4], [1, 2]]


@torch.no_grad()
def test_a_second_turn_on_the_reduced_cache(tiny):
    """A new image in a later turn is a prompt of its own; both turns' caches are cut."""
    own = tiny_named("llava-llama")
    model = tiny(own, "sdpa")
    first, second = (make_inputs(model, own, [row]) for row in ([5, "image:0", 9], [3, "image:1", 4]))
    with sl.apply(model, CONFIGS["merging"]) as run:
        cache = model(**first)[CACHE]
        held = cache.layers[0].keys.shape[-2]
        mask = torch.ones(1, 30 + second["input_ids"].shape[1], dtype=torch.long)
        out = model(**{**second, "attention_mask": mask}, **{CACHE: cache})
    assert held == 14 + run.reports[0].n_after[0] and out.logits.isfinite().all()
    assert {layer.keys.shape[-2] for layer in cache.layers} == {held + 7 + run.reports[1].n_after[0]}


def test_gradients_reach_the_tower(tiny):
    """Through added tokens' neighbours; a cut carries no gradient itself."""
    own = tiny_named("llava-llama")
    model = own.build("sdpa")
    inputs = make_inputs(model, own, [[5, "image:0", 9]])
    for name in ("cached", "merging"):
        model.zero_grad()
        with sl.apply(model, CONFIGS[name]):
            model(**inputs, labels=inputs["input_ids"]).loss.backward()
        grads = [p.grad for n, p in model.named_parameters() if "vision_tower" in n and p.grad is not None]
        assert grads and any(bool(g.abs().sum() > 0) for g in grads) and all(bool(g.isfinite().all()) for g in grads)
