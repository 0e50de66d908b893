"""Everything that cannot work says so: which error, and what its message names."""

import gc
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    SiglipVisionConfig,
)
from transformers.models.siglip.modeling_siglip import SiglipVisionModel

import seeless as sl
from seeless.api import active_handle
from seeless.core.host import CACHE
from seeless.families import families
from seeless.models import supported_models
from tinies import Gemma4
from tinies import make_inputs as make_tiny_inputs
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs

LLAVA, NEXT = VARIANTS[1], VARIANTS[4]


# Strategies.


def test_unknown_strategy_has_near_matches():
    with pytest.raises(sl.UnknownStrategy, match="no strategy is called 'fast_v'; did you mean fastv"):
        sl.get("fast_v", keep=0.5)
    with pytest.raises(sl.UnknownStrategy, match="did you mean vispruner"):
        sl.get("VisPrunner", keep=0.5)
    with pytest.raises(sl.UnknownStrategy, match=r"there are .*fastervlm, fastv"):
        sl.get("zzzzzz", keep=0.5)
    assert issubclass(sl.UnknownStrategy, LookupError) and issubclass(sl.UnknownStrategy, sl.SeelessError)


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("fastv", {}, "keep"),
        ("fastv", {"keep": 0.5, "important_ratio": 0.1}, "no field 'important_ratio'.*belongs to vispruner"),
        ("fastv", {"keep": 0.5, "k": 2}, "no field 'k'; its fields are .*keep"),
        ("fastv", {"keep": 2.0}, "must lie in"),
        ("fastv", {"keep": 0}, "keeps no token"),
        ("fastv", {"keep": [0.5, 0.25]}, "1 layers .* need 1 budgets"),
        ("fastv", {"keep": 0.5, "layer": 0}, "first layer it can act before is 1"),
        ("fastv", {"keep": 0.5, "layer": -1}, "layer=-1 is not possible"),
        ("fastv", {"keep": 0.5, "layer": True}, "layer=True is not possible"),
        ("fastv", {"keep": 0.5, "layer": 2.0}, "layer=2.0 is not possible"),
        ("fastv", {"keep": [0.5, 0.25], "layer": [4, 2]}, "ascending order"),
        ("fastv", {"keep": [0.25, 0.5], "layer": [2, 4]}, "once dropped cannot return"),
        ("fastv", {"keep": 0.5, "scope": "batch"}, "scope='batch' is not possible; choose one of row, image"),
        ("fastv", {"keep": 0.5, "positions": "new"}, "choose one of keep, renumber"),
        ("fastv", {"keep": 0.5, "past": "cut"}, "choose one of keep, trim"),
        ("fastervlm", {"keep": [0.5, 0.25]}, "acts once and takes one budget"),
        ("priortr", {"keep": 0.5, "query_aggregation": "all"}, "choose one of question, last"),
        ("priortr", {"keep": 0.5, "head_aggregation": "min"}, "choose one of mean, max"),
        ("pyramiddrop", {"keep": 0.5}, "name as many layers"),
        ("pyramiddrop", {"keep": [0.5, 0.25]}, "name as many layers"),
        ("pyramiddrop", {"keep": [0.25, 0.5, 0.125]}, "grows from 0.25 to 0.5"),
        ("vispruner", {"keep": 0.5, "important_ratio": 1.5}, "important_ratio=1.5 is no share"),
        ("pool", {"keep": 0.5, "scope": "row"}, "averages over a grid"),
        ("random", {"keep": 0.5, "layer": -1}, "first layer it can act before is 0"),
    ],
    ids=str,
)
def test_bad_fields(name, knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.get(name, **knobs)


def test_from_dict_names_what_is_missing():
    with pytest.raises(sl.BudgetError, match="no 'strategy' among"):
        sl.from_dict({"keep": 0.5})
    with pytest.raises(sl.UnknownStrategy):
        sl.from_dict({"strategy": "nothing", "keep": 0.5})


def test_names_of_strategies():
    class Mine(sl.FastV):
        pass

    for name in ("Mine", "my-method", "my method", "2fast", ""):
        with pytest.raises(ValueError, match="is no name for a strategy"):
            sl.register(name)(Mine)
    with pytest.raises(ValueError, match=r"'fastv' already belongs to seeless\.strategies\.fastv\.FastV"):
        sl.register("fastv")(Mine)
    assert sl.get("fastv", keep=0.5) == sl.FastV(keep=0.5) and Mine.name == "fastv"  # inherited, not registered


# `apply`.


def test_double_apply(tiny):
    model = tiny(LLAVA, "sdpa")
    with sl.apply(model, sl.FastV(keep=0.5)):
        with pytest.raises(sl.AlreadyApplied, match=r"already carries \[FastV\(keep=0.5.*as one list"):
            sl.apply(model, "random", keep=0.5)
        with pytest.raises(sl.AlreadyApplied):
            sl.apply(model, sl.FastV(keep=0.5))
    handle = sl.apply(model, "random", keep=0.5)
    handle.remove()
    handle.remove()
    with sl.apply(model, "fastv", keep=0.5):
        handle.remove()  # the old handle cannot take the new one off
        with pytest.raises(sl.AlreadyApplied):
            sl.apply(model, "random", keep=0.5)


def test_a_model_and_its_base_carry_one_handle(tiny):
    model = tiny(LLAVA, "sdpa")
    for first, second in ((model, model.model), (model.model, model)):
        with sl.apply(first, "fastv", keep=4), pytest.raises(sl.AlreadyApplied, match=r"already carries \[FastV"):
            sl.apply(second, "random", keep=4)
        sl.apply(second, "random", keep=4).remove()


def test_knobs_belong_to_names(tiny):
    model = tiny(LLAVA, "sdpa")
    with pytest.raises(sl.BudgetError, match=r"\['keep', 'layer'\] belong to a strategy given by name"):
        sl.apply(model, sl.FastV(keep=0.5), keep=0.25, layer=3)
    for wrong in ([], [sl.FastV(keep=0.5), "random"], 3, None, sl.FastV):
        with pytest.raises(sl.BudgetError, match="is no strategy; give one, its name, or a list"):
            sl.apply(model, wrong)
    sl.apply(model, (sl.FasterVLM(keep=8), sl.FastV(keep=0.5))).remove()


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (None, ["None is no model"]),
        (5, ["5 is no model"]),
        ("llava-hf/llava-1.5-7b-hf", ["is a name", "from_pretrained('llava-hf/llava-1.5-7b-hf')"]),
        (nn.Linear, ["Linear is a class", "Linear.from_pretrained"]),
        (nn.Linear(1, 1), ["Linear is no transformers model"]),
        (SimpleNamespace(model=nn.Linear(1, 1)), ["SimpleNamespace is no model; give its model"]),
    ],
    ids=str,
)
def test_what_is_no_model(given, parts):
    for strategy in ("fastv", sl.FastV(keep=4)):
        with pytest.raises(sl.UnsupportedModel) as error:
            sl.apply(given, strategy, **({"keep": 4} if strategy == "fastv" else {}))
        assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize("given", [5, None, "fastv", [("strategy", "fastv")]])
def test_from_dict_takes_dicts(given):
    with pytest.raises(sl.BudgetError, match=r"is no dict; from_dict takes what Strategy\.to_dict returned"):
        sl.from_dict(given)


def test_a_handle_nobody_holds_stays_and_can_be_found(tiny):
    model = tiny(LLAVA, "sdpa")
    sl.apply(model, "fastv", keep=4)
    gc.collect()
    with pytest.raises(sl.AlreadyApplied, match=r"seeless\.api\.active_handle\(model\)\.remove\(\)"):
        sl.apply(model, "random", keep=4)
    active_handle(model).remove()
    assert active_handle(model) is None


@pytest.mark.parametrize("layer", [6, 7, 99])
def test_layers_outside_the_model(tiny, layer):
    model = tiny(LLAVA, "sdpa")
    with pytest.raises(sl.BudgetError, match=rf"layer={layer} lies outside .* 6 layers \(0 to 5\)"):
        sl.apply(model, "fastv", keep=0.5, layer=layer)
    with pytest.raises(sl.BudgetError, match="lies outside"):
        sl.apply(model, "pyramiddrop", keep=[0.5, 0.25], layer=[2, layer])
    sl.apply(model, "fastv", keep=0.5, layer=5).remove()  # a refused handle leaves no trace


def test_a_decoder_too_shallow_for_three_stages():
    with pytest.raises(sl.BudgetError, match="no room for three stages"):
        sl.PyramidDrop().layers(3)
    assert sl.PyramidDrop().layers(4) == [1, 2, 3]


def test_unsupported_models():
    config = VARIANTS[1].build().config.text_config
    with pytest.raises(sl.UnsupportedModel, match="type 'llama' are not supported; supported are ") as refused:
        sl.apply(LlamaForCausalLM(config), "fastv", keep=0.5)
    supported = str(refused.value).partition("supported are ")[2].partition(". ")[0].split(", ")
    assert supported == sorted(name for model in supported_models() for name in model.model_types)
    assert {"llava", "llava_next", "qwen2_vl", "paligemma"} <= set(supported)
    with pytest.raises(sl.UnsupportedModel, match=r"Linear is no transformers model: it has no config\.model_type"):
        sl.apply(nn.Linear(2, 2), "fastv", keep=0.5)
    assert issubclass(sl.UnsupportedModel, TypeError)


def config_with(text=None, vision=None, **options):
    plain = LLAVA.build().config
    return LlavaConfig(
        text_config=text or plain.text_config,
        vision_config=vision or plain.vision_config,
        image_token_index=IMAGE,
        image_seq_length=16,
        tie_word_embeddings=False,
        **{"vision_feature_layer": -2, "vision_feature_select_strategy": "default", **options},
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"both_ways": ()},
        {"both_ways": ("full_attention", "sliding_attention")},
        {"both_ways_if": ("use_bidirectional_attention", "all")},
        {"token_types": "token_type_ids"},
        {"prefix": True},
    ],
    ids=str,
)
@torch.no_grad()
def test_masks_of_a_base_model_that_the_family_does_not_expect(wrong, monkeypatch):
    """Gemma 4 by a family file that says something else of its visual tokens: refused, whoever acts where."""
    own, known = Gemma4(), dict(families())
    model = own.build("sdpa")
    inputs = make_tiny_inputs(model, own, [[5, "image:0", 9], [3, "image:1", 4, "image:2", 6]])
    monkeypatch.setattr("seeless.families.families", lambda: {**known, "gemma4": replace(known["gemma4"], **wrong)})
    for strategy in (sl.Random(keep=0.5), sl.FastV(keep=4, layer=3)):
        with sl.apply(model, strategy), pytest.raises(sl.UnsupportedModel, match="as seeless does not expect of Gemma"):
            model(**inputs)
        with sl.apply(model, strategy, self_check=False):
            model(**inputs)


def test_layers_of_unknown_kind():
    model = LLAVA.build()
    model.model.language_model.config.layer_types = ["full_attention", "chunked_attention"] * 3
    with pytest.raises(sl.UnsupportedModel, match=r"layers of kind chunked_attention, .* full_attention, sliding"):
        sl.apply(model, "random", keep=0.5)
    model.model.language_model.config.layer_types = ["linear_attention", "conv"] * 3
    with pytest.raises(sl.UnsupportedModel, match=r"no layer of this LLaVA-1\.5 model's decoder"):
        sl.apply(model, "random", keep=0.5)


def windowed(window):
    text = MistralConfig(
        vocab_size=100,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=window,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config_with(text)).eval()
    model.generation_config.pad_token_id = 0
    return model


@torch.no_grad()
def test_sliding_windows():
    """Equal to no window until a conversation is longer than the window, dropped tokens included."""
    model, endless = windowed(32), windowed(None)
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])  # 30 tokens
    longer = make_inputs(model, LLAVA, [[7, "image:0", 9]])  # 32
    longest = make_inputs(model, LLAVA, [[8, "image:0", 9]])  # 33
    for name in ("random", "fastv"):
        with sl.apply(model, name, keep=4, layer=1), sl.apply(endless, name, keep=4, layer=1):
            answers = [each.generate(**inputs, max_new_tokens=3) for each in (model, endless)]
            assert torch.equal(*answers) and answers[0].shape[1] == 33  # the last of these sees nothing any more
            assert torch.equal(model(**inputs).logits, endless(**inputs).logits)
            assert (model(**longer).logits - endless(**longer).logits).abs().max() < 1e-5
            assert not torch.equal(model(**longest).logits[:, -1], endless(**longest).logits[:, -1])


def siglip():
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config_with(vision=vision, vision_feature_select_strategy="full")).eval()
    model.generation_config.pad_token_id = 0
    return model


@pytest.mark.parametrize("strategy", [sl.FasterVLM(keep=5), sl.VisPruner(keep=5, important_ratio=1.0)], ids=str)
@torch.no_grad()
def test_towers_without_a_class_token(strategy):
    """The mean attention a patch receives takes the class token's place, and the report says so."""
    model = siglip()
    inputs = make_inputs(model, LLAVA, RAGGED)
    tower = SiglipVisionModel(model.config.vision_config).eval()
    tower.load_state_dict(model.model.vision_tower.state_dict())
    tower.set_attn_implementation("eager")
    maps = tower(inputs["pixel_values"], output_attentions=True).attentions[1]  # made features [-2] of three layers
    best = maps.mean((1, 2)).topk(5).indices.sort().values  # of four images, in rows 0, 1, 1 and 3
    wanted = [best[0], best[1:3] + torch.tensor([[0], [16]]), best[:0], best[3]]
    with sl.apply(model, strategy) as run:
        model(**inputs)
    (stage,) = run.report.stages
    assert [kept.tolist() for kept in stage.kept] == [own.flatten().tolist() for own in wanted]
    assert stage.signal == "the mean attention received in tower layer 1 (no class token)"
    assert stage.to_dict()["signal"] == stage.signal and f"{strategy.name} ranks by {stage.signal}" in str(run.report)


@torch.no_grad()
def test_signals_of_other_strategies(tiny):
    model = tiny(LLAVA, "sdpa")
    for name, signal in (("fastervlm", "the class token's attention in tower layer 1"), ("fastv", None)):
        with sl.apply(model, name, keep=4) as run:
            model(**make_inputs(model, LLAVA, RAGGED))
        assert run.report.stages[0].signal == signal


@pytest.mark.parametrize("name", ["fastv", "priortr", "pool", "random", "uniform"])
@torch.no_grad()
def test_others_work_on_such_towers(name):
    model = siglip()
    inputs = make_inputs(model, LLAVA, RAGGED)
    with sl.apply(model, name, keep=4, scope="crop") as run:
        assert model(**inputs).logits.isfinite().all()
        model.generate(**inputs, max_new_tokens=2)
    assert run.report.n_after == [4, 8, 0, 4]


# Inputs.


@torch.no_grad()
def test_nothing_after_the_image(tiny):
    model = tiny(LLAVA, "sdpa")
    for row in ([5, "image:0"], [2, "image:1", 3, "image:0"]):
        inputs = make_inputs(model, LLAVA, [row])
        with (
            sl.apply(model, "priortr", keep=4),
            pytest.raises(sl.InputError, match="no token follows the image"),
        ):
            model(**inputs)
        with sl.apply(model, "fastv", keep=4) as run:  # the last token may be visual
            model(**inputs)
        assert run.report.n_after == [4]


@pytest.mark.parametrize("queries", ["question", "last"])
@torch.no_grad()
def test_one_row_without_text_after_its_image_among_others(tiny, queries):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [*RAGGED, [5, "image:0"]])
    with (
        sl.apply(model, "priortr", keep=4, query_aggregation=queries),
        pytest.raises(sl.InputError, match="no token follows the image"),
    ):
        model(**inputs)


@torch.no_grad()
def test_ready_made_masks(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])
    length = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    for strategy in ("fastv", "fastervlm"):
        with (
            sl.apply(model, strategy, keep=4),
            pytest.raises(sl.InputError, match=r"4-D .* pass the 2-D attention_mask"),
        ):
            model(**inputs)


@pytest.mark.parametrize("name", ["fastv", "fastervlm"])
@torch.no_grad()
def test_a_mask_of_the_wrong_length_on_a_reduced_cache(tiny, name):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])
    length = inputs["input_ids"].shape[1]
    token = torch.tensor([[7]])
    with sl.apply(model, name, keep=4):
        cache = model(**inputs)[CACHE]
        for columns in (1, length - 12 + 1, length, length + 2):
            with pytest.raises(sl.InputError, match=rf"has {columns} columns, but the conversation has {length + 1}"):
                model(input_ids=token, attention_mask=torch.ones(1, columns), **{CACHE: cache})
        mask = torch.ones(1, length + 1)
        assert model(input_ids=token, attention_mask=mask, **{CACHE: cache}).logits.isfinite().all()


@pytest.mark.parametrize("name", ["fastv", "fastervlm"])
@torch.no_grad()
def test_outputs_as_tuples(name):
    """Asked for in the call, or by any of the configs, with which the untouched model cannot run in part."""
    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    configs = (model.config, model.config.text_config, model.config.vision_config)
    with sl.apply(model, name, keep=4):
        want, ids = model(**inputs).logits, model.generate(**inputs, max_new_tokens=3)
        states = model.model(**inputs).last_hidden_state
        assert torch.equal(model(**inputs, return_dict=False)[0], want)
        for config in configs:
            config.return_dict = False
            for output in (model(**inputs, return_dict=True).logits, model(**inputs, return_dict=False)[0]):
                assert torch.equal(output, want)
            assert torch.equal(model.generate(**inputs, max_new_tokens=3), ids)
        assert torch.equal(model(**inputs)[0], want) and isinstance(model(**inputs), tuple)
        assert torch.equal(model.model(**inputs)[0], states)


@torch.no_grad()
def test_a_row_of_padding_alone(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    inputs["attention_mask"][2] = 0
    with sl.apply(model, "fastv", keep=4), pytest.raises(sl.InputError, match="all padding"):
        model(**inputs)


@torch.no_grad()
def test_embeddings_without_pixels(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[0]])
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    with sl.apply(model, "fastv", keep=4):
        with pytest.raises(sl.InputError, match="do not say which embeddings are visual; pass input_ids and pixel"):
            model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"])
        cache = model(**inputs)[CACHE]
        with pytest.raises(sl.InputError, match="do not say which"):
            model(inputs_embeds=embeds[:, :4], **{CACHE: cache})
        model(inputs_embeds=embeds[:, :1], **{CACHE: cache})  # a decode step


@pytest.mark.parametrize("variant", [LLAVA, NEXT], ids=str)
@torch.no_grad()
def test_features_made_without_the_handle(tiny, variant):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, [RAGGED[1]])
    pixels = {k: inputs.pop(k) for k in ("pixel_values", "image_sizes") if k in inputs}
    before = model.get_image_features(**pixels)
    with sl.apply(model, "fastv", keep=4):
        refusal = r"made without this handle.*cut up.*get_image_features while the handle"
        with pytest.raises(sl.InputError, match=refusal):
            model(**inputs, mm_encoder_outputs={"image": before})
        features = model.get_image_features(**pixels)
        again = model(**inputs, mm_encoder_outputs={"image": features}).logits
        assert torch.equal(again, model(**inputs, **pixels).logits)
        rebuilt = type(features)(**features)  # as accelerate does when it moves outputs between devices
        assert torch.equal(model(**inputs, mm_encoder_outputs={"image": rebuilt}).logits, again)
        features.pooler_output = features.pooler_output[:1]
        with pytest.raises(sl.InputError, match=refusal):
            model(**inputs, mm_encoder_outputs={"image": features})
    features = model.get_image_features(**pixels)
    assert torch.equal(model(**inputs, mm_encoder_outputs={"image": features}).logits, model(**inputs, **pixels).logits)


@torch.no_grad()
def test_features_of_several_runs_of_the_tower(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[1]])
    pixels = inputs.pop("pixel_values")
    with sl.apply(model, "fastervlm", keep=4):
        first, second = (model.get_image_features(pixel_values=pixels[i : i + 1]) for i in range(2))
        first.pooler_output = [*first.pooler_output, *second.pooler_output]
        with pytest.raises(sl.InputError):
            model(**inputs, mm_encoder_outputs={"image": first})


@torch.no_grad()
def test_placeholders_that_do_not_fit_the_features(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[0], [6, "image:1", 8]])
    uneven = inputs["input_ids"].clone()
    last = (uneven[0] == IMAGE).nonzero()[-1, 0]
    uneven[0, last] = 5
    with sl.apply(model, "fastv", keep=4):
        with pytest.raises(ValueError, match=r"do not match, tokens: 31|31 visual placeholders"):
            model(**{**inputs, "input_ids": uneven})
        uneven[1, 2] = IMAGE  # the sum fits, the rows do not
        with pytest.raises(sl.InputError, match="row 0 end in the middle of an image"):
            model(**{**inputs, "input_ids": uneven})
        model(**inputs)


def test_every_error_is_one_of_ours():
    names = ("AlreadyApplied", "BudgetError", "InputError", "MissingExtra", "StrategyError", "UnknownStrategy")
    for name in (*names, "UnsupportedModel"):
        assert issubclass(getattr(sl, name), sl.SeelessError)
    assert issubclass(sl.BudgetError, ValueError) and issubclass(sl.InputError, ValueError)
    assert issubclass(sl.AlreadyApplied, RuntimeError) and issubclass(sl.MissingExtra, ImportError)
