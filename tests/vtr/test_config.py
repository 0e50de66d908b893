"""`VTRConfig`: its fields, defaults by backbone, budgets, and the registry."""

import inspect
from dataclasses import dataclass, fields
from types import SimpleNamespace

import guests
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import seeless as sl
import seeless.vtr as vtr
from seeless.core.host import CACHE
from seeless.vtr import VTR_REGISTRY, PruningStrategy, VTRConfig, VTRStrategy, get_strategy, register_strategy
from seeless.vtr.backbones import BACKBONES, OTHER, QWEN3, backbone_of
from seeless.vtr.registry import config_class
from tinies import TINIES, make_inputs

FIELDS = {  # methods.md 14.1, all copies
    *("enabled", "strategy", "prune_layer", "keep_ratio", "keep_tokens", "score_threshold", "query_aggregation"),
    *("head_aggregation", "ref_layers", "retain_ratio", "clse_cutoff_ratio", "clse_temp", "clse_grid_t"),
    *("clse_grid_h", "clse_grid_w", "clse_fft_3d", "token_merge", "merge_clusters", "important_ratio"),
    *("prior_prompt", "prior_mode", "adaptive_layer", "candidate_layers", "video_pruning_mode", "debug"),
}
DEFAULTS = {  # methods.md 2.3 and 14.1: strategy, K, ratio, tokens, query of priortr, of fastv
    "llava": ("priortr", 3, 0.25, 192, "question", "question"),
    "llava_next": ("priortr", 3, 0.25, 320, "last", "last"),
    "internvl": ("priortr", 2, 0.25, None, "question", "question"),
    "qwen2_vl": ("priortr", 3, 0.1111, None, "question", "last"),
    "qwen3_vl": ("priortr", 3, 0.1111, None, "question", "last"),
    "video_llava": ("fastv", 16, 0.25, None, "last", "last"),
}


def filled(model_type, **options):
    return VTRConfig(**options).filled(backbone_of(model_type))


def test_every_field_of_the_copies_is_there():
    assert {knob.name for knob in fields(VTRConfig)} == FIELDS | {"as_released"}


@pytest.mark.parametrize("model_type", DEFAULTS)
def test_defaults_by_backbone(model_type):
    strategy, layer, ratio, tokens, query, fastv_query = DEFAULTS[model_type]
    config = filled(model_type)
    assert (config.strategy, config.prune_layer, config.keep_ratio, config.keep_tokens) == (
        strategy,
        layer,
        ratio,
        tokens,
    )
    assert config.prune_layers == config.get_prune_layers() == [layer] and config.get_score_layer() == layer - 1
    assert config.head_aggregation == "mean" and config.ref_layers == [] and config.retain_ratio is None
    assert (config.clse_cutoff_ratio, config.clse_temp, config.important_ratio) == (0.1, 0.1, 0.5)
    assert (config.clse_grid_t, config.clse_grid_h, config.clse_grid_w, config.clse_fft_3d) == (8, 16, 16, False)
    assert (config.token_merge, config.merge_clusters, config.prior_prompt, config.prior_mode) == (
        False,
        10,
        "",
        "truncate",
    )
    assert (config.adaptive_layer, config.candidate_layers) == (False, [4, 8, 12, 16, 20, 24, 28])
    for given_query in (None, "auto"):
        assert filled(model_type, strategy="priortr", query_aggregation=given_query).query_aggregation == query
        assert filled(model_type, strategy="fastv", query_aggregation=given_query).query_aggregation == fastv_query
    assert filled(model_type, query_aggregation="last").query_aggregation == "last"


def test_backbones_that_are_relatives_and_those_without_a_copy():
    assert backbone_of("qwen2_5_vl") is backbone_of("qwen2_vl") and backbone_of("qwen3_vl_moe") is QWEN3
    assert backbone_of("gemma3") is OTHER and OTHER.keep_tokens is None
    supported = {kind for tiny in TINIES for kind in [tiny.config().model_type]}
    assert set(BACKBONES) <= supported | {"qwen3_vl_moe"}


@pytest.mark.parametrize("model_type", ["llava", "llava_next"])
def test_the_automatic_budget_only_where_none_is_given(model_type):
    auto = {"llava": 192, "llava_next": 320}[model_type]
    assert filled(model_type).get_keep_count(576) == auto and filled(model_type).get_keep_count(100) == 100
    assert filled(model_type, keep_ratio=0.5).get_keep_count(576) == 288
    assert filled(model_type, keep_ratio=0.25).get_keep_count(576) == 144  # also where it is the default's value
    assert filled(model_type, keep_tokens=0).get_keep_count(576) == 0
    assert filled(model_type, retain_ratio=0.334).keep_tokens is None
    assert filled(model_type, score_threshold=0.1).keep_tokens is None


@given(
    n=st.integers(1, 4000),
    tokens=st.none() | st.integers(0, 5000),
    ratio=st.none() | st.floats(0, 1),
    model_type=st.sampled_from(list(DEFAULTS)),
)
def test_keep_counts(n, tokens, ratio, model_type):
    """Of the tokens there are; Qwen's copies keep at least one."""
    qwen = model_type.startswith("qwen")
    config = filled(model_type, keep_tokens=tokens, keep_ratio=ratio)
    if tokens is None and ratio is None:
        tokens = DEFAULTS[model_type][3]
    if tokens is not None:
        assert config.get_keep_count(n) == min(tokens, n)
    else:
        share = DEFAULTS[model_type][2] if ratio is None else ratio
        assert config.get_keep_count(n) == max(int(qwen), int(n * share))


def test_lists_are_read_by_cut():
    config = VTRConfig(
        prune_layer=[8, 3], keep_ratio=[0.5, 0.25], keep_tokens=None, score_threshold=[0.1, 0.2], merge_clusters=[3, 4]
    ).filled(QWEN3)
    assert config.get_prune_layers() == [8, 3] and config.prune_layers == [3, 8] and config.num_prune_layers == 2
    assert config.get_score_layer() == 7 and config.is_prune_layer(3) and not config.is_prune_layer(4)
    assert (config.get_keep_count(100, 0), config.get_keep_count(100, 1)) == (50, 25)
    assert (config.get_merge_cluster_count(0), config.get_merge_cluster_count(1)) == (3, 4)
    single = config.at_step(1)
    assert (single.keep_ratio, single.score_threshold, single.merge_clusters) == (0.25, 0.2, 4)
    assert VTRConfig(prune_layer=0).get_score_layer() == 0 and VTRConfig(keep_tokens=[5, 3], prune_layer=[1, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune_layer": 2.5}, "whole numbers"),
        ({"prune_layer": True}, "whole numbers"),
        ({"prune_layer": "3"}, "whole numbers"),
        ({"prune_layer": []}, "empty"),
        ({"keep_tokens": -1}, "from 0 on"),
        ({"keep_tokens": 2.0}, "whole numbers"),
        ({"keep_tokens": [1, -1], "prune_layer": [1, 2]}, "from 0 on"),
        ({"keep_ratio": 1.1}, "from 0 to 1"),
        ({"keep_ratio": -0.1}, "from 0 to 1"),
        ({"keep_ratio": float("nan")}, "from 0 to 1"),
        ({"keep_ratio": [0.5, 0.2]}, "one entry per prune layer"),
        ({"keep_tokens": [5], "prune_layer": [1, 2]}, "one entry per prune layer"),
        ({"score_threshold": [0.1, 0.2], "prune_layer": [1]}, "one entry per prune layer"),
        ({"score_threshold": "high"}, "numbers"),
        ({"score_threshold": float("nan")}, "numbers"),
        ({"retain_ratio": 0}, "above 0"),
        ({"retain_ratio": 1.2}, "from 0 to 1"),
        ({"important_ratio": 0.0}, "above 0"),
        ({"merge_clusters": 0}, "from 1 on"),
        ({"clse_temp": -1}, "from 0 on"),
        ({"clse_grid_t": 0}, "from 1 on"),
        ({"ref_layers": [0.5]}, "whole numbers"),
        ({"ref_layers": 3}, "list"),
        ({"query_aggregation": "all"}, "choose one of last, question, auto"),
        ({"head_aggregation": "sum"}, "choose one of mean, max"),
        ({"prior_mode": "none"}, "choose one of truncate, template"),
        ({"video_pruning_mode": "all"}, "choose one of none, frame, window"),
        ({"video_pruning_mode": "frame"}, "reserved"),
        ({"clse_fft_3d": True}, "does not work or is never run"),
        ({"prior_prompt": "what?"}, "does not work or is never run"),
        ({"adaptive_layer": True}, "does not work or is never run"),
        ({"enabled": "False"}, "enabled"),
        ({"token_merge": "True"}, "token_merge"),
    ],
    ids=str,
)
def test_bad_values(options, message):
    with pytest.raises(sl.BudgetError, match=message):
        VTRConfig(**options)


def test_unknown_names_have_near_matches():
    for call in (lambda data: VTRConfig(**data), VTRConfig.from_dict):
        with pytest.raises(sl.BudgetError, match="VTRConfig has no field 'keep_token'; did you mean keep_tokens"):
            call({"keep_token": 3})
        with pytest.raises(sl.BudgetError, match="no field 'zzz'; its fields are enabled, strategy"):
            call({"zzz": 3})
    with pytest.raises(sl.BudgetError, match="TemperedConfig has no field 'temperature'; did you mean my_temperature"):
        guests.TemperedConfig(temperature=1)


def test_there_and_back():
    config = VTRConfig(strategy="fastv", prune_layer=[2, 4], keep_ratio=[0.5, 0.25], ref_layers=[0], debug=True)
    assert VTRConfig.from_dict(config.to_dict()) == config and VTRConfig() == VTRConfig.from_dict({})
    own = guests.TemperedConfig(my_temperature=0.7, keep_tokens=3)
    assert own.to_dict()["my_temperature"] == 0.7 and guests.TemperedConfig.from_dict(own.to_dict()) == own
    kept = own.filled(OTHER)
    assert type(kept) is guests.TemperedConfig and kept.my_temperature == 0.7 and kept.at_step(0).my_temperature == 0.7


def test_a_subclass_with_a_constructor_of_its_own():
    @dataclass
    class Own(VTRConfig):
        extra: int = 1

        def __init__(self, extra=1, **options):
            super().__init__(**options)
            self.extra = extra

    assert Own(extra=5, keep_tokens=3).keep_tokens == 3


# Budgets on a model.


LLAVA = next(own for own in TINIES if own.name == "llava-llama-mha")
QWEN = {name: next(own for own in TINIES if own.name == name) for name in ("qwen2_vl", "qwen3_vl")}


def counts(tiny, own, rows=None, **options):
    """Layers and tokens of every cut of a prompt with 16 visual tokens."""
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, rows or [[5, "image:0", 9]])
    with sl.apply(model, VTRConfig(**options)) as run, torch.no_grad():
        out = model(**inputs)
    lengths = {layer.keys.shape[-2] for layer in out[CACHE].layers}
    assert lengths == {inputs["input_ids"].shape[1] - 16 + run.report.n_after[0]}
    assert run.report.n_before == [16] and str(run.report)
    return [(stage.layer, stage.n_after[0]) for stage in run.report.stages]


def test_budgets_of_the_present_count(tiny):
    assert counts(tiny, LLAVA, prune_layer=[2, 4], keep_ratio=0.5) == [(2, 8), (4, 4)]
    assert counts(tiny, LLAVA, prune_layer=[2, 4], keep_tokens=5) == [(2, 5), (4, 5)]
    assert counts(tiny, LLAVA, prune_layer=[2, 4], keep_tokens=[9, 3]) == [(2, 9), (4, 3)]
    assert counts(tiny, LLAVA, prune_layer=[4, 2], keep_tokens=[3, 9]) == [(2, 9), (4, 3)]
    assert counts(tiny, LLAVA, prune_layer=[4, 2, 4], keep_ratio=0.5) == [(2, 8), (4, 4)]
    assert counts(tiny, LLAVA, prune_layer=[3, 3, 5], keep_tokens=[9, 1, 3]) == [(3, 9), (5, 3)]
    assert counts(tiny, LLAVA, prune_layer=3) == [(3, 16)]  # 192 of 16
    assert counts(tiny, LLAVA, keep_ratio=0.3) == [(3, 4)]  # honoured, and floored
    assert counts(tiny, LLAVA, keep_ratio=0.05) == [(3, 0)]
    assert counts(tiny, LLAVA, keep_ratio=1.0) == counts(tiny, LLAVA, keep_tokens=16) == [(3, 16)]
    assert counts(tiny, LLAVA, keep_ratio=0.5, keep_tokens=3) == [(3, 3)]
    assert counts(tiny, LLAVA, prune_layer=[2, 4], keep_tokens=0) == [(2, 0), (4, 0)]
    assert counts(tiny, QWEN["qwen2_vl"], keep_ratio=0.05) == [(3, 1)]
    assert counts(tiny, QWEN["qwen2_vl"]) == [(3, 1)]  # 0.1111 of 16


def test_an_empty_choice(tiny):
    """Qwen2-VL's copy keeps everything then; the others drop all."""
    assert counts(tiny, QWEN["qwen2_vl"], keep_tokens=0) == [(3, 16)]
    assert counts(tiny, QWEN["qwen3_vl"], keep_tokens=0) == [(3, 0)]
    with pytest.raises(sl.BudgetError, match=r"ratio in \(0, 1\]"):
        sl.apply(tiny(QWEN["qwen3_vl"], "sdpa"), VTRConfig(keep_ratio=[0.5, 0], prune_layer=[1, 2]))


def test_layers_that_never_fire(tiny):
    for layers in (0, 7, 100, -2, [0, 9]):
        assert counts(tiny, LLAVA, prune_layer=layers, keep_tokens=5) == []
    assert counts(tiny, LLAVA, prune_layer=[0, 2, 9], keep_tokens=[1, 5, 2]) == [(2, 5)]
    assert counts(tiny, LLAVA, enabled=False, keep_tokens=5) == []


def test_thresholds(tiny):
    """Strictly above; at least the best; a count outranks it, it outranks a ratio."""
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    with sl.apply(model, VTRConfig(strategy="mymethod", prune_layer=2, keep_tokens=4)) as run, torch.no_grad():
        model(**inputs)
    scores = run.report.stages[0].scores[0]
    middle = float(scores.sort().values[9])
    plain = {"strategy": "mymethod", "prune_layer": 2}
    assert counts(tiny, LLAVA, **plain, score_threshold=middle) == [(2, 6)]
    assert counts(tiny, LLAVA, **plain, score_threshold=middle, keep_ratio=0.9) == [(2, 6)]
    assert counts(tiny, LLAVA, **plain, score_threshold=middle, keep_tokens=3) == [(2, 3)]
    assert counts(tiny, LLAVA, **plain, score_threshold=9.0) == [(2, 1)]
    assert counts(tiny, LLAVA, **plain, score_threshold=-1) == [(2, 16)]
    two = {"strategy": "mymethod", "prune_layer": [4, 2], "score_threshold": [9.0, middle]}
    assert counts(tiny, LLAVA, **two) == [(2, 6), (4, 1)]
    assert counts(tiny, QWEN["qwen3_vl"], **{**two, "strategy": "merging_not"}) == [(2, 16), (4, 1)]


@register_strategy("merging_not")
class QwenKind(VTRStrategy):
    """Reads the lists of budgets at the number of the cut."""

    def compute_scores(self, attention, image_token_range, config, layer_idx=0, **context):
        assert isinstance(config.score_threshold, list)
        return torch.full((image_token_range[1] - image_token_range[0],), 1.0)


@torch.no_grad()
def test_a_cut_after_the_last_layer_shortens_the_caches_alone(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [[5, "image:0", 9], [2, "image:3", 3], [14]])
    plain = model(**inputs)
    real = inputs["attention_mask"].bool()
    with sl.apply(model, VTRConfig(strategy="mymethod", prune_layer=6, keep_tokens=5)) as run:
        out = model(**inputs)
        ids = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert (out.logits - plain.logits)[real].abs().max() < 1e-5
    report = run.reports[0]
    assert report.n_after == [5, 5, 0] and report.stages[0].layer == 6
    assert report.visual == [[16, 16, 0]] * 6 and report.share == 1 and report.kv_bytes_after < report.kv_bytes_before
    assert {layer.keys.shape[-2] for layer in out[CACHE].layers} == {19}
    columns = [*range(5), *(5 + report.stages[0].kept[0]).tolist(), *range(21, 30)]
    for cut, whole in zip(out[CACHE].layers, plain[CACHE].layers, strict=True):
        assert (cut.keys[0] - whole.keys[0][:, columns]).abs().max() < 1e-5
    from oracle import MaskOracle, turn_of

    untouched = tiny(LLAVA, "untouched")
    full = {**LLAVA.extend(inputs, 3), "input_ids": ids}
    turn = turn_of(report, inputs["input_ids"], [99])
    with MaskOracle(untouched, run.strategies, [turn], full["attention_mask"]):
        want = untouched(**full, use_cache=False).logits
    assert torch.equal(want[:, -4:-1].argmax(-1), ids[:, -3:])
    with sl.apply(model, VTRConfig(strategy="merging", prune_layer=[2, 6], keep_ratio=0.5)) as run:
        out = model(**inputs)
    assert {layer.keys.shape[-2] for layer in out[CACHE].layers} == {14 + run.report.n_after[0]}


@torch.no_grad()
def test_videos_on_qwen(tiny):
    own = QWEN["qwen2_vl"]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[4, "video:0", 6]])
    for mode, kept in ((None, 3), ("none", 32)):
        with sl.apply(model, VTRConfig(keep_tokens=3, video_pruning_mode=mode)) as run:
            model(**inputs)
        assert run.report.n_after == [kept]


@torch.no_grad()
def test_every_cut_is_logged_on_demand(tiny, caplog):
    caplog.set_level("INFO", logger="seeless.vtr")
    counts(tiny, LLAVA, keep_tokens=5)
    assert caplog.records == []
    counts(tiny, LLAVA, keep_tokens=5, debug=True)
    assert caplog.messages == ["priortr before layer 3 keeps 5 of 16"]


@torch.no_grad()
def test_everything_kept_is_the_untouched_model(tiny):
    for own in (LLAVA, QWEN["qwen3_vl"]):
        model = tiny(own, "sdpa")
        inputs = make_inputs(model, own, [[5, "image:0", 9], [2, "image:3", 3]])
        plain = model(**inputs).logits
        with sl.apply(model, VTRConfig(strategy="fastv", prune_layer=[1, 3], keep_ratio=1.0)):
            assert torch.equal(model(**inputs).logits, plain)


def test_as_released_is_for_qwen(tiny):
    with pytest.raises(sl.BudgetError, match="nothing of the kind"):
        sl.apply(tiny(LLAVA, "sdpa"), VTRConfig(as_released=True))
    for strategy, options in (("sparsevlm", {"token_merge": True}), ("priortr_2f", {})):
        with pytest.raises(sl.UnsupportedModel, match="not reproduced"):
            sl.apply(tiny(QWEN["qwen3_vl"], "sdpa"), VTRConfig(strategy=strategy, as_released=True, **options))


# The registry.


@pytest.fixture
def registry():
    before = dict(VTR_REGISTRY)
    yield VTR_REGISTRY
    VTR_REGISTRY.clear()
    VTR_REGISTRY.update(before)


def test_names(registry):
    built_in = {"fastv", "priortr", "priortr_2f", "sparsevlm", "vispruner", "clse"}
    assert built_in <= set(registry)
    for name in built_in:
        assert type(get_strategy(name)).__name__ in vtr.__all__
    first, second = get_strategy("priortr"), get_strategy("priortr")
    assert first is not second and isinstance(first, PruningStrategy)

    @register_strategy("priortr")
    class Another:
        def compute_scores(self, attention, image_token_range, config):
            return None

    assert type(get_strategy("priortr")) is Another  # silently overwritten
    with pytest.raises(ValueError, match=r"no strategy is registered as 'nothing'; there are .*clse, .*priortr"):
        get_strategy("nothing")
    with pytest.raises(sl.BudgetError, match="has no compute_scores"):
        register_strategy("empty")(type("Empty", (), {}))
    with pytest.raises(sl.BudgetError, match="registered as 'nothing'"):
        VTRConfig(strategy="nothing").strategy_for(SimpleNamespace(model_type="llava"))
    for base in (PruningStrategy, VTRStrategy):
        with pytest.raises(TypeError, match="abstract"):
            base()


def test_config_classes():
    assert config_class("tempered") is guests.TemperedConfig and config_class("priortr") is VTRConfig
    assert config_class("mymethod") is guests.TemperedConfig  # the only one of its module


def test_all_is_complete_and_explained():
    here = {name for name, value in vars(vtr).items() if callable(value)} | {"VTR_REGISTRY"}
    assert sorted(vtr.__all__) == sorted(here)
    for name in here - {"VTR_REGISTRY"}:
        assert inspect.getdoc(getattr(vtr, name)), name
        for method, value in vars(getattr(vtr, name)).items() if isinstance(getattr(vtr, name), type) else ():
            if inspect.isfunction(value) and not method.startswith("_"):
                assert inspect.getdoc(getattr(getattr(vtr, name), method)), f"{name}.{method}"


PAPERS = {
    "priortr": "2606.24156",
    "priortr_2f": None,
    "fastv": None,
    "clse": "2606.24165",
    "sparsevlm": "2410.04417",
    "vispruner": "2412.01818",
}


@pytest.mark.parametrize("name", PAPERS)
def test_built_in_classes_say_what_they_compute(name):
    doc = type(get_strategy(name)).__doc__
    assert doc.splitlines()[0].strip() and (PAPERS[name] or "") in doc
    assert "score = " in doc or name == "priortr_2f"
