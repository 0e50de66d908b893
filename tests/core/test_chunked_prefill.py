"""Prompts with images prefilled in chunks: what one forward gives, in pieces, under strategies at the entry."""

import inspect

import pytest
import torch
from transformers import GenerationConfig

import seeless as sl
from layer_loop import has_recurrent_layers
from seeless.core.host import CACHE
from seeless.models import check_strategy
from tinies import TINIES, make_inputs

METHODS = {
    "nothing dropped": sl.Random(keep=1.0),
    "renumbered": sl.Random(keep=0.4),
    "places kept": sl.Random(keep=0.4, positions="keep"),
    "merged": sl.Pool(keep=0.3),
    "in the tower": sl.ToMe(keep=0.6),
    "by the tower": sl.FasterVLM(keep=0.5),
}
BOTH_WAYS = ("gemma3", "gemma4", "gemma4-small", "paligemma", "paligemma2", "molmo2")
CASES = [(tiny, kind) for tiny in TINIES for kind in tiny.kinds if tiny.name not in BOTH_WAYS]
SIZES = (5, 1, 16, 1000)


def answer(model, inputs, **options):
    shared = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    return model.generate(**inputs, **{**shared, **options})


def taken_in(model):
    """Lengths of what enters the first decoder layer, as they come."""
    seen = []
    decoder = getattr(model.model, "language_model", None) or model.model.text_model
    hook = decoder.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[0] if args else kwargs["hidden_states"]).shape[1]),
        with_kwargs=True,
    )
    return seen, hook


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
@torch.no_grad()
def test_chunks_give_what_one_forward_gives(case, tiny):
    own, kind = case
    model, number = tiny(own, "sdpa"), CASES.index(case)
    inputs = make_inputs(model, own, [[5, f"{kind}:0", 9], [2, "image:2", 3], [3, f"{kind}:1", 4, f"{kind}:2", 2]])
    names = [name for name in METHODS if not (own.mrope and name == "renumbered")]
    for turn in range(3):
        strategy, size = METHODS[names[(number + 2 * turn) % len(names)]], SIZES[(number + turn) % len(SIZES)]
        try:
            check_strategy(model, strategy)
            with sl.apply(model, strategy):
                model(**inputs)
        except sl.UnsupportedModel:  # a tower that cannot be read, or in which tokens cannot merge
            assert strategy in (METHODS["in the tower"], METHODS["by the tower"])
            continue
        if size == 1 and has_recurrent_layers(model):
            with pytest.raises(sl.InputError, match="lets padding into the state"), sl.apply(model, strategy):
                answer(model, inputs, prefill_chunk_size=size)
            size = 2
        with sl.apply(model, strategy) as run:
            want = answer(model, inputs)
            kept = [stage.kept for stage in run.report.stages]
            seen, hook = taken_in(model)
            try:
                got = answer(model, inputs, prefill_chunk_size=size)
            finally:
                hook.remove()
        assert torch.equal(got.sequences, want.sequences), (strategy, size)
        for a, b in zip(got.logits, want.logits, strict=True):
            assert (a - b).abs().max() < 2e-4
        prefill = seen[: len(seen) - 3]  # three of the four tokens come from steps of decoding
        assert max(prefill) <= size and len(prefill) == -(-sum(prefill) // size)
        for stage, before in zip(run.report.stages, kept, strict=True):
            assert [k.tolist() for k in stage.kept] == [k.tolist() for k in before]


@torch.no_grad()
def test_wherever_the_size_is_said(tiny):
    own = TINIES[0]
    model, inputs = tiny(own, "sdpa"), make_inputs(tiny(own, "sdpa"), own, [[5, "image:0", 9]])
    with sl.apply(model, sl.DivPrune(keep=8)):
        want = answer(model, inputs).sequences
        config = GenerationConfig(prefill_chunk_size=4, max_new_tokens=4, do_sample=False, pad_token_id=0)
        plain = {"prefill_chunk_size": 4, "max_new_tokens": 4, "do_sample": False}
        for options in (plain, {"generation_config": config}):
            seen, hook = taken_in(model)
            assert torch.equal(model.generate(**inputs, **options), want)
            hook.remove()
            assert seen[:6] == [4, 4, 4, 4, 4, 2] and seen[6:] == [1, 1, 1]
        model.generation_config.prefill_chunk_size = 4
        try:
            seen, hook = taken_in(model)
            assert torch.equal(answer(model, inputs).sequences, want)
            hook.remove()
            assert seen[:6] == [4, 4, 4, 4, 4, 2]
        finally:
            model.generation_config.prefill_chunk_size = None


@pytest.mark.parametrize(
    "how",
    [{"cache_implementation": "static"}, {"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}, "encoded"],
    ids=str,
)
@pytest.mark.parametrize("name", ["llava-llama-mha", "qwen3_vl"])
@torch.no_grad()
def test_chunks_beside_other_ways_to_generate(name, how, tiny):
    own = next(each for each in TINIES if each.name == name)
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[5, "image:0", 9], [2, "image:2", 3]])
    options = {} if how == "encoded" else how
    if how == "encoded":
        if "mm_encoder_outputs" not in inspect.signature(model.model.forward).parameters:
            pytest.skip("this release of transformers takes no features that were encoded ahead")
        if name != "llava-llama-mha":
            pytest.skip("features of one size suffice")
    with sl.apply(model, sl.FasterVLM(keep=6)):
        if how == "encoded":
            inputs["mm_encoder_outputs"] = {"image": model.get_image_features(inputs.pop("pixel_values"))}
        found = []
        for more in ({}, {"prefill_chunk_size": 4}):
            torch.manual_seed(0)
            found.append(answer(model, inputs, **options, **more))
    assert torch.equal(found[0].sequences, found[1].sequences)
    assert all((a - b).abs().max() < 2e-4 for a, b in zip(found[0].logits, found[1].logits, strict=True))


@torch.no_grad()
def test_a_second_image_in_a_conversation(tiny):
    """After a reduced turn, in chunks and at once."""
    own = next(each for each in TINIES if each.name == "llava-llama-mha")
    model = tiny(own, "sdpa")
    first, both = (make_inputs(model, own, [row]) for row in ([5, "image:0", 9], [5, "image:0", 9, "image:1", 7]))
    both["input_ids"][:, : first["input_ids"].shape[1]] = first["input_ids"]
    found = []
    for options in ({}, {"prefill_chunk_size": 3}):
        with sl.apply(model, sl.FasterVLM(keep=6)):
            out = answer(model, first, **options)
            ids = torch.cat([out.sequences, both["input_ids"][:, first["input_ids"].shape[1] :]], 1)
            second = {**both, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            second["pixel_values"] = both["pixel_values"][1:]
            found.append(answer(model, second, **{CACHE: out[CACHE]}, **options))
    assert torch.equal(found[0].sequences, found[1].sequences)
    assert all((a - b).abs().max() < 2e-4 for a, b in zip(found[0].logits, found[1].logits, strict=True))


@pytest.mark.parametrize("strategy", [sl.FastV(keep=0.5), [sl.DivPrune(keep=0.5), sl.PriorTR(keep=0.2)]], ids=str)
@torch.no_grad()
def test_strategies_between_layers_are_refused(strategy, tiny):
    model = tiny(TINIES[0], "sdpa")
    inputs = make_inputs(model, TINIES[0], [[5, "image:0", 9]])
    with sl.apply(model, strategy):
        with pytest.raises(sl.InputError, match=r"prefill_chunk_size=4\): \w+ decides before layer"):
            answer(model, inputs, prefill_chunk_size=4)
        answer(model, inputs)


@pytest.mark.parametrize("name", BOTH_WAYS)
@torch.no_grad()
def test_images_that_see_themselves_both_ways_are_refused(name, tiny):
    own = next(each for each in TINIES if each.name == name)
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[5, "image:0", 9]])
    with sl.apply(model, sl.DivPrune(keep=0.5)), pytest.raises(sl.UnsupportedModel, match="transformers itself"):
        answer(model, inputs, prefill_chunk_size=4)
