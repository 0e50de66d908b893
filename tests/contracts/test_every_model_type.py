"""Every `model_type` that transformers maps to pictures and text: equal to the oracle, or refused in a sentence."""

import pytest
import torch
import transformers
from plan import FULL
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES

import seeless as sl
from seeless.checking.family import Check, build, check_family
from seeless.core.host import TESTED, version
from seeless.families import families, family_of
from tinies import TINIES

NEWEST = version().startswith(f"{TESTED[1]}.")
# Older releases lack some, or err in them.
HERE = families() if NEWEST else {tiny.config().model_type for tiny in TINIES}
SUPPORTED = [name for name in families() if name in CLASSES and name in HERE]
OTHERS = [name for name in CLASSES if name not in families()]
METHODS = (sl.ToMe(keep=0.5), sl.FasterVLM(keep=5), sl.Uniform(keep=0.5), sl.FastV(keep=0.5), sl.PyramidDrop())
# What sets each decoder apart is said in tests/core/test_decoder_attention.py.
DECODERS = (
    *(
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "phi3",
        "olmo2",
        "glm",
        "glm4",
        "glm4_moe",
        "cohere",
        "gpt_oss",
    ),
    *("gemma2", "deepseek_v2", "deepseek_v3", "smollm3", "granitemoe", "gpt_neox", "persimmon", "ministral3"),
)
REFUSED_DECODERS = ("opt", "biogpt", "bloom", "gpt2", "mamba2", "jamba", "rwkv", "xglm", "bert", "doge")


# What the checkpoints say and the classes of configs do not.
SAID = {
    name: {"vision_start_token_id": 151652, "vision_end_token_id": 151653}
    for name in ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")
}
SAID |= {name: {"image_token_id": 151655, "video_token_id": 151656} for name in ("minicpmv4_6", "minicpmv4_7")}


SAID["gemma4"] = {"vision_config": {"model_type": "gemma4_vision"}}
SAID["granite4_vision"] = {
    "vision_config": {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 16, "hidden_size": 1152},
    "vision_feature_select_strategy": "full",
    "downsample_rate": "4/8",
    "image_grid_pinpoints": [[384, 384], [384, 768], [768, 384]],
    "deepstack_layer_map": [[-19, 9], [-13, 6], [-7, 3], [-1, 0]],
}
NEED_TIMM = ("fast_vlm", "perception_lm")  # which is not among the tests' packages: their tinies have stand-ins


def config_of(name):
    if name in NEED_TIMM:
        return next(tiny.config() for tiny in TINIES if tiny.name == name)
    return CONFIG_MAPPING[name](**SAID.get(name, {}))


def model_class(name):
    return getattr(transformers, CLASSES[name])


def failures(outcomes):
    return [(outcome.what, outcome.detail) for outcome in outcomes if outcome.state == "fails"]


def refusal(act):
    """The sentence in which something is refused; None if it is not."""
    try:
        act()
    except sl.UnsupportedModel as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", SUPPORTED)
def test_what_is_supported_equals_the_oracle(name):
    """Merging in the tower meets its oracle in the contracts; here it runs, or is refused."""
    family = family_of(name)
    check = Check(build(config_of(name), model_class(name), family.mrope), family)
    outcomes = [each for each in check.outcomes() if NEWEST or each.what != "videos"]  # which older ones do not take
    assert failures(outcomes) == []
    assert {outcome.what for outcome in outcomes if outcome.state == "holds"} >= {"a cut at the entry"}

    def merge():
        with torch.no_grad(), sl.apply(check.model, sl.ToMe(keep=0.5)):
            assert check.model(**check.batch.inputs).logits.isfinite().all()

    assert (sentence := refusal(merge)) is None or len(sentence) > 40


def anything_of(name):
    """A tiny model of a type; where none can be made, a module with its config."""
    config = CONFIG_MAPPING[name]()
    try:
        return build(config, model_class(name), mrope=False)
    except (sl.UnsupportedModel, sl.MissingExtra):
        model = nn.Module()
        model.config = config
        return model


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_supported_is_refused_by_name_and_with_a_reason(name):
    model = anything_of(name)
    for strategy in METHODS:
        with pytest.raises(sl.UnsupportedModel, match=rf"models of type '{name}' are not supported[:;] .{{30}}"):
            sl.apply(model, strategy)


def with_decoder(kind, family="internvl"):
    """The config of a family around another decoder."""
    text = CONFIG_MAPPING[kind]()
    return CONFIG_MAPPING[family](text_config=text)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        *(("internvl", kind) for kind in DECODERS if kind in CONFIG_MAPPING),
        *(("mistral3", kind) for kind in ("ministral3", "mistral4") if kind in CONFIG_MAPPING),
        *(pytest.param("llava", kind, marks=FULL) for kind in DECODERS if kind in CONFIG_MAPPING),
        *(pytest.param("mistral3", kind, marks=FULL) for kind in DECODERS[:-1] if kind in CONFIG_MAPPING),
    ],
)
def test_families_around_other_decoders(family, kind):
    assert failures(check_family(with_decoder(kind, family), model_class(family))) == []


@pytest.mark.parametrize("kind", REFUSED_DECODERS)
def test_decoders_that_cannot_be_read_are_refused(kind):
    outcomes = []
    sentence = refusal(lambda: outcomes.extend(check_family(with_decoder(kind), model_class("internvl"))))
    assert failures(outcomes) == []
    assert any(outcome.state == "refused" for outcome in outcomes) or len(sentence) > 40
