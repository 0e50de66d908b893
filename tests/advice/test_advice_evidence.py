"""Published figures behind advice: which count, in which order they put methods, and which model is the nearest."""

import math
from fractions import Fraction
from statistics import fmean

import pytest

from published_table import write_table
from seeless import models
from seeless.advice.advising import published_name
from seeless.advice.evidence import NEAR, published_of, rank, untouched_of
from seeless.advice.kin import PUBLISHED, nearest_first
from seeless.bench.architectures import ARCHITECTURES, scaled
from seeless.eval.published import figures

PLAIN = {"model": "LLaVA-1.5-7B", "benchmark": "GQA", "task": "gqa"}
WHOLE = {**PLAIN, "strategy": "none", "method": "vanilla", "value": 60.0, "share": 1.0, "tokens": 144}


def described(config):
    return models.describe(models.skeleton(config), strategies=())


def test_methods_are_compared_within_the_source_that_has_most_of_them(tmp_path, monkeypatch):
    def row(method, value, **more):
        return {**PLAIN, "strategy": method, "method": method, "value": value, **more}

    write_table(
        tmp_path / "own.parquet",
        monkeypatch,
        *(WHOLE, {**WHOLE, "benchmark": "POPE", "value": 80.0}, {**WHOLE, "source": "other", "value": 50.0}),
        *(row("fastv", 30.0), row("fastv", 80.0, benchmark="POPE")),
        *(row("divprune", 54.0), row("divprune", 40.0, benchmark="POPE")),
        *(row("scope", 57.0), row("scope", 1.0, benchmark="POPE", suspect="columns look shifted")),
        row("tops", 60.0, share=0.5),  # another budget
        *(row("fastv", 50.0, source="other"), row("divprune", 1.0, source="other")),
        row("vispruner", 60.0, source="third"),  # without the untouched model
        *(row("dart", 99.0, benchmark="average", metric="mean of 9 scores") for _ in range(2)),
    )
    asked = dict.fromkeys(("fastv", "divprune", "scope", "tops", "vispruner", "dart"), 0.25)
    found = rank(asked, "LLaVA-1.5-7B")
    assert (found.source, found.benchmarks) == ("page", ("GQA",))  # the one for which scope has a figure
    assert [(each.method, each.kept) for each in found.places] == [("scope", 0.95), ("divprune", 0.9), ("fastv", 0.5)]
    both = rank({"fastv": 0.25, "divprune": 0.25}, "LLaVA-1.5-7B")
    assert both.benchmarks == ("GQA", "POPE") and [each.kept for each in both.places] == [0.75, 0.7]
    pope = rank(asked, "LLaVA-1.5-7B", ["POPE"])
    assert [each.method for each in pope.places] == ["fastv", "divprune"]
    assert rank({"fastv": 0.25, "tops": 0.25}, "LLaVA-1.5-7B") is None  # one alone is no comparison
    assert rank({"fastv": 0.25, "divprune": None}, "LLaVA-1.5-7B") is None
    assert rank(asked, "Qwen3-VL-8B") is None


@pytest.mark.parametrize("share", [0.5, 2 / 9, 1 / 9])
@pytest.mark.parametrize("model", ["LLaVA-1.5-7B", "LLaVA-NeXT-7B", "Qwen2.5-VL-7B", "LLaVA-OneVision-7B"])
def test_a_ranking_of_the_shipped_table_is_that_of_plain_loops(model, share):
    methods = sorted({each.strategy for each in figures() if each.strategy not in (None, "none")})
    found = rank(dict.fromkeys(methods, share), model)
    own = [each for each in figures() if each.model == model and not each.suspect and each.metric[:4] != "mean"]
    own = [each for each in own if found is not None and each.source == found.source]
    whole = {(each.benchmark, each.metric): each.value for each in own if each.strategy == "none"}
    near = {}
    for method in methods:
        given = [each for each in own if each.strategy == method and each.share]
        given = [each for each in given if share / NEAR <= each.share <= share * NEAR]
        if given:
            best = min(given, key=lambda each: abs(math.log(each.share / share))).share
            near[method] = {(e.benchmark, e.metric): e.value for e in given if e.share == best}
    if found is None:
        assert model in ("LLaVA-OneVision-7B", "Qwen2.5-VL-7B")
        return
    shared = [key for key in whole if all(key in values for values in near.values())]
    want = {method: fmean(values[key] / whole[key] for key in shared) for method, values in near.items()}
    assert {each.method: each.kept for each in found.places} == pytest.approx(want)
    assert [each.kept for each in found.places] == sorted(want.values(), reverse=True) and len(want) >= 2


def test_figures_of_a_method_are_those_nearest_to_the_budget_in_each_source():
    assert {each.budget for each in published_of("LLaVA-1.5-7B", "fastv", 128 / 576)} <= {"128", "144"}
    assert {each.budget for each in published_of("LLaVA-1.5-7B", "fastervlm", 0.25)} == {"144"}
    assert published_of("LLaVA-1.5-7B", "fastv", 0.9) == published_of("LLaVA-1.5-7B", "fastv", None) == []
    assert untouched_of("LLaVA-1.5-7B", "eadp-1")["GQA", "accuracy (%)"] == 61.9


def test_what_models_with_figures_look_like():
    """Against the configs that are timed, of those there are."""
    from transformers import AutoConfig

    named = {each.name.casefold(): each for each in PUBLISHED}
    assert named.keys() >= ARCHITECTURES.keys()
    for name in ARCHITECTURES:
        config, own = AutoConfig.for_model(**scaled(name, Fraction(1))), named[name]
        text = config.text_config
        assert (own.model_type, own.tower) == (config.model_type, config.vision_config.model_type)
        assert (own.layers, own.hidden) == (text.num_hidden_layers, text.hidden_size)
        nearest = nearest_first(described(config))
        assert nearest[0] == (own.name, f"of the same model_type, {own.model_type}"), name
    published = {each.model for each in figures() if each.checkpoint is not None}
    assert published <= {each.name for each in PUBLISHED} <= {each.model for each in figures()}


def test_relatives():
    from transformers import CONFIG_MAPPING

    def nearest(kind):
        return nearest_first(described(CONFIG_MAPPING[kind]()))[0]

    assert nearest("gemma3") == ("LLaVA-OneVision-7B", "with the same kind of tower, siglip_vision_model")
    assert nearest("vipllava")[0].startswith("LLaVA-1.5")
    kind, about = nearest("qwen3_5")
    assert about == "with another tower, and as many tokens as the picture asks for, as here" and kind != "LLaVA-1.5-7B"


def test_only_hub_ids_and_architectures_have_figures():
    assert published_name("Qwen/Qwen2.5-VL-7B-Instruct", None) == "Qwen2.5-VL-7B"
    assert published_name(None, None) is published_name("some/where", None) is None
