"""Generation in all its forms: beams, sampling, no cache, several turns, interleaved generations, cache kinds."""

import copy

import pytest
import torch
from matrix import STRATEGIES
from plan import covering
from transformers import DynamicCache, StaticCache

import seeless as sl
from oracle import MaskOracle, turn_of
from seeless.core.host import CACHE
from seeless.registry import strategy_class
from tiny_models import BACKENDS, IMAGE, RAGGED, SOME, VARIANTS, make_inputs

CHOSEN = {name: STRATEGIES[name] for name in ("random", "fastv", "priortr", "pyramiddrop", "vispruner")}
some = pytest.mark.parametrize("variant", SOME, ids=str)
named = pytest.mark.parametrize("name", CHOSEN)
everywhere = covering(name=CHOSEN, variant=SOME, backend=BACKENDS)


def oracle_logits(untouched, strategies, turns, sequences, mask, inputs):
    full = {**inputs, "input_ids": sequences}
    grown = sequences.shape[1] - mask.shape[1]
    full["attention_mask"] = torch.nn.functional.pad(mask, (0, grown), value=1)
    with MaskOracle(untouched, strategies, turns, full["attention_mask"]):
        return untouched(**full, use_cache=False).logits


@everywhere
@torch.no_grad()
def test_beam_search_scores_are_the_oracles(tiny, variant, name, backend):
    model, untouched, strategy = tiny(variant, backend), tiny(variant, "untouched"), CHOSEN[name]
    prompts = [RAGGED[0], RAGGED[3]]
    inputs = make_inputs(model, variant, prompts)
    prompt = inputs["input_ids"].shape[1]
    with sl.apply(model, strategy) as run:
        out = model.generate(
            **inputs,
            max_new_tokens=5,
            num_beams=3,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            length_penalty=1.0,
        )
    report = run.reports[0]
    assert len(report.n_before) == 6
    rows = [0, 3]  # the first beam of either prompt
    for i in range(2):
        one = make_inputs(model, variant, [prompts[i]])
        kept = [stage.kept[rows[i]] for stage in report.stages]
        for beam in range(3):
            assert [s.kept[rows[i] + beam].tolist() for s in report.stages] == [k.tolist() for k in kept]
        with sl.apply(model, strategy) as alone:
            model(**one)
        answer = torch.cat([one["input_ids"], out.sequences[i : i + 1, prompt:]], 1)
        turn = turn_of(alone.report, one["input_ids"], IMAGE)
        logits = oracle_logits(untouched, [strategy], [turn], answer, one["attention_mask"], one)
        chances = logits.log_softmax(-1)[0, -6:-1].gather(1, answer[0, -5:, None])
        assert abs(chances.sum().item() / 5 - out.sequences_scores[i].item()) < 1e-4


@some
@named
@torch.no_grad()
def test_sampling_with_several_answers(tiny, variant, name):
    model, untouched, strategy = tiny(variant, "sdpa"), tiny(variant, "untouched"), CHOSEN[name]
    inputs = make_inputs(model, variant, [RAGGED[0]])
    torch.manual_seed(3)
    with sl.apply(model, strategy) as run:
        out = model.generate(
            **inputs,
            max_new_tokens=5,
            do_sample=True,
            suppress_tokens=[IMAGE],
            num_return_sequences=3,
            return_dict_in_generate=True,
            output_logits=True,
        )
    turn = turn_of(run.reports[0], inputs["input_ids"], IMAGE)
    for i in range(3):
        want = oracle_logits(untouched, [strategy], [turn], out.sequences[i : i + 1], inputs["attention_mask"], inputs)
        assert (torch.stack(out.logits, 1)[i] - want[0, -6:-1]).abs().max() < 1e-4


@everywhere
@torch.no_grad()
def test_without_cache_every_step_is_a_prefill(tiny, variant, name, backend):
    """FastV's own evaluation: no cache, ranked anew with every new token."""
    model, strategy = tiny(variant, backend), CHOSEN[name]
    inputs = make_inputs(model, variant, RAGGED[:1])
    with sl.apply(model, strategy) as run:
        out = model.generate(
            **inputs, max_new_tokens=4, use_cache=False, return_dict_in_generate=True, output_logits=True
        )
        assert len(run.reports) == 4
        ids = inputs["input_ids"]
        for step, logits in enumerate(out.logits):
            given = {**inputs, "input_ids": out.sequences[:, : ids.shape[1] + step]}
            given["attention_mask"] = torch.ones_like(given["input_ids"])
            assert (model(**given, use_cache=False).logits[:, -1] - logits).abs().max() < 2e-5


@everywhere
@torch.no_grad()
def test_conversation_continues_on_the_reduced_cache(tiny, variant, name, backend):
    """Three turns: an image, then text alone, then a new image; the whole conversation against one oracle pass."""
    model, untouched, strategy = tiny(variant, backend), tiny(variant, "untouched"), CHOSEN[name]
    first = make_inputs(model, variant, [[5, "image:0", 9], [8, "image:2", 3]])
    with sl.apply(model, strategy) as run:
        out = model.generate(
            **first, max_new_tokens=3, do_sample=False, return_dict_in_generate=True, **{CACHE: DynamicCache()}
        )
        cache, turns = out[CACHE], [turn_of(run.reports[0], first["input_ids"], IMAGE)]

        more = torch.randint(3, 99, (2, 6), generator=torch.Generator().manual_seed(1))
        ids = torch.cat([out.sequences, more], 1)
        mask = torch.nn.functional.pad(
            first["attention_mask"], (0, ids.shape[1] - first["attention_mask"].shape[1]), value=1
        )
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            **{CACHE: cache},
            max_new_tokens=3,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
        assert len(run.reports) == 1
        want = oracle_logits(untouched, [strategy], turns, out.sequences, mask, first)
        assert (torch.stack(out.logits, 1) - want[:, -4:-1]).abs().max() < 1e-4

        new = make_inputs(model, variant, [[4, "image:1", 5], [4, "image:1", 5]])
        start = out.sequences.shape[1]
        ids = torch.cat([out.sequences, new["input_ids"]], 1)
        mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
        given = {**new, "input_ids": ids, "attention_mask": mask}
        out = model.generate(
            **given,
            **{CACHE: out[CACHE]},
            max_new_tokens=3,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
        assert len(run.reports) == 2
        turns.append(turn_of(run.reports[1], ids, IMAGE, start))
    both = {**first, "pixel_values": _interleave(first["pixel_values"], new["pixel_values"])}
    if "image_sizes" in first:
        both["image_sizes"] = _interleave(first["image_sizes"], new["image_sizes"])
    want = oracle_logits(untouched, [strategy], turns, out.sequences, mask, both)
    assert (torch.stack(out.logits, 1) - want[:, -4:-1]).abs().max() < 1e-4


def _interleave(a, b):
    """Images of two turns in the order of the conversation: row by row."""
    if a.ndim == 5:
        most = max(a.shape[1], b.shape[1])
        a, b = (torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 0, 0, most - x.shape[1])) for x in (a, b))
    return torch.stack([a, b], 1).flatten(0, 1)


@everywhere
@torch.no_grad()
def test_an_image_after_a_cached_prefix(tiny, variant, name, backend):
    """A system prompt prefilled once, its cache copied, and continued with an image."""
    model, untouched, strategy = tiny(variant, backend), tiny(variant, "untouched"), CHOSEN[name]
    inputs = make_inputs(model, variant, [[7, "image:0", 9]])
    prefix = {"input_ids": inputs["input_ids"][:, :5], "attention_mask": inputs["attention_mask"][:, :5]}
    with sl.apply(model, strategy) as run:
        cache = copy.deepcopy(model(**prefix)[CACHE])
        assert not run.reports
        out = model.generate(
            **inputs, **{CACHE: cache}, max_new_tokens=4, return_dict_in_generate=True, output_logits=True
        )
    turn = turn_of(run.reports[0], inputs["input_ids"], IMAGE)
    want = oracle_logits(untouched, [strategy], [turn], out.sequences, inputs["attention_mask"], inputs)
    assert (torch.stack(out.logits, 1) - want[:, -5:-1]).abs().max() < 1e-4


@some
@named
@torch.no_grad()
def test_two_generations_interleave_on_one_model(tiny, variant, name):
    model, strategy = tiny(variant, "sdpa"), CHOSEN[name]
    prompts = [make_inputs(model, variant, [row]) for row in (RAGGED[0], RAGGED[1])]
    with sl.apply(model, strategy):
        apart = [_steps(model, prompt) for prompt in prompts]
        apart = [[logits for logits, _ in steps] for steps in apart]
        mixed, generators = [[], []], [_steps(model, prompt) for prompt in prompts]
        for pair in zip(*generators, strict=True):
            for i in range(2):
                mixed[i].append(pair[i][0])
    for a, b in zip(apart, mixed, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _steps(model, prompt, count=5):
    out = model(**prompt)
    for _ in range(count):
        yield out.logits[:, -1], out[CACHE]
        token = out.logits[:, -1:].argmax(-1)
        out = model(input_ids=token, **{CACHE: out[CACHE]})


@some
@named
@torch.no_grad()
def test_hand_written_decoding_equals_generate(tiny, variant, name):
    model = tiny(variant, "sdpa")
    prompt = make_inputs(model, variant, [RAGGED[1]])
    with sl.apply(model, CHOSEN[name]):
        ids = model.generate(**prompt, max_new_tokens=5, do_sample=False)[0, -5:].tolist()
        assert [logits.argmax().item() for logits, _ in _steps(model, prompt)] == ids


@some
@named
@torch.no_grad()
def test_a_copied_cache_goes_its_own_way(tiny, variant, name):
    model = tiny(variant, "sdpa")
    prompt = make_inputs(model, variant, [RAGGED[0]])
    with sl.apply(model, CHOSEN[name]):
        out = model(**prompt)
        twin = copy.deepcopy(out[CACHE])
        a = model(input_ids=torch.tensor([[7]]), **{CACHE: out[CACHE]}).logits
        model(input_ids=torch.tensor([[9]]), **{CACHE: out[CACHE]})
        assert torch.equal(model(input_ids=torch.tensor([[7]]), **{CACHE: twin}).logits, a)
        assert twin.get_seq_length() == prompt["input_ids"].shape[1] + 1


@some
@named
@torch.no_grad()
def test_prompt_lookup_decoding_gives_the_same_answer(tiny, variant, name):
    model = tiny(variant, "sdpa")
    prompt = make_inputs(model, variant, [RAGGED[0]])
    with sl.apply(model, CHOSEN[name]):
        plain = model.generate(**prompt, max_new_tokens=12, do_sample=False)
        assisted = model.generate(**prompt, max_new_tokens=12, do_sample=False, prompt_lookup_num_tokens=2)
    assert torch.equal(plain, assisted)


@torch.no_grad()
def test_text_only_prompts_are_left_alone(tiny):
    variant = VARIANTS[1]
    model = tiny(variant, "sdpa")
    prompt = make_inputs(model, variant, [[14], [9]])
    before = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    with sl.apply(model, sl.FastV(keep=0.25)) as run:
        assert torch.equal(model.generate(**prompt, max_new_tokens=4, do_sample=False), before)
        with pytest.raises(sl.SeelessError, match="no prompt with an image"):
            _ = run.report


@everywhere
@torch.no_grad()
def test_static_caches_give_the_same(tiny, variant, name, backend):
    if backend == "fused":
        pytest.skip("the test's own kernel reads no static cache, with or without a handle")
    model, inputs = tiny(variant, backend), make_inputs(tiny(variant, backend), variant, RAGGED)
    options = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    with sl.apply(model, CHOSEN[name]):
        want = model.generate(**inputs, **options)
        cache = StaticCache(config=model.config.text_config, max_cache_len=want.sequences.shape[1])
        for given in ({"cache_implementation": "static"}, {CACHE: cache}):
            out = model.generate(**inputs, **options, **given)
            assert (torch.stack(out.logits) - torch.stack(want.logits)).abs().max() < 1e-5


@torch.no_grad()
def test_a_reduced_cache_is_useless_without_its_handle_and_says_so(tiny):
    variant = VARIANTS[1]
    model = tiny(variant, "sdpa")
    prompt = make_inputs(model, variant, [RAGGED[0]])
    with sl.apply(model, sl.FasterVLM(keep=4)):
        cache = model(**prompt)[CACHE]
    with pytest.raises(sl.InputError, match="handle has been removed"):
        model(input_ids=torch.tensor([[7]]), **{CACHE: cache})
    cache.reset()
    model(**prompt, **{CACHE: cache})


@some
@torch.no_grad()
def test_stages_compose(tiny, variant):
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    strategies = [sl.PriorTR(keep=3, layer=4, scope="image"), sl.FasterVLM(keep=0.5), sl.FastV(keep=0.25, layer=2)]
    inputs = make_inputs(model, variant, RAGGED)
    with sl.apply(model, strategies) as run:
        out = model.generate(
            **inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    assert [stage.strategy for stage in run.report.stages] == ["fastervlm", "fastv", "priortr"]
    assert run.report.n_after == [3, 6, 0, 3]
    turn = turn_of(run.reports[0], inputs["input_ids"], IMAGE)
    want = oracle_logits(untouched, strategies, [turn], out.sequences, inputs["attention_mask"], inputs)
    assert (torch.stack(out.logits, 1) - want[:, -5:-1]).abs().max() < 1e-4


@covering(past=["keep", "trim"], positions=["keep", "renumber"], variant=SOME, backend=BACKENDS)
@torch.no_grad()
def test_padded_prompts_that_an_entry_cut_makes_equally_long(tiny, variant, backend, past, positions):
    """No padding is left in the cache, but there was some in the prompts: later tokens stand behind what is real."""
    model, untouched = tiny(variant, backend), tiny(variant, "untouched")
    entry = sl.Random(keep=3, scope="image", past=past, positions=positions)
    later = sl.FastV(keep=0.99, scope="image", layer=2)  # of three tokens it drops none
    inputs = make_inputs(model, variant, [[6, "image:0", 5], [3, "image:0", 2, "image:1", 3], [14]])
    columns = inputs["input_ids"].shape[1]
    for strategies in ([entry], [entry, later]):
        with sl.apply(model, strategies) as run:
            out = model.generate(
                **inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True, output_logits=True
            )
            prefill = model(**inputs)
            mask, by_hand = inputs["attention_mask"], [prefill.logits[:, -1]]
            for step in range(3):  # positions are then those of the columns
                mask = torch.nn.functional.pad(mask, (0, 1), value=1)
                new = out.sequences[:, columns + step : columns + step + 1]
                by_hand.append(model(input_ids=new, attention_mask=mask, **{CACHE: prefill[CACHE]}).logits[:, -1])
        assert {kept + text for kept, text in zip(run.reports[0].n_after, run.reports[0].text, strict=True)} == {14}
        turn = turn_of(run.reports[0], inputs["input_ids"], IMAGE)
        want = oracle_logits(untouched, strategies, [turn], out.sequences, inputs["attention_mask"], inputs)
        assert (torch.stack(out.logits, 1) - want[:, -5:-1]).abs().max() < 1e-4
        assert (torch.stack(by_hand, 1) - want[:, -5:-1]).abs().max() < 1e-4


@covering(
    name=["fastv", "random"], past=["keep", "trim"], positions=["keep", "renumber"], variant=SOME, backend=BACKENDS
)
@torch.no_grad()
def test_every_bookkeeping_choice(tiny, variant, past, positions, name, backend):
    model, untouched, cls = tiny(variant, backend), tiny(variant, "untouched"), strategy_class(name)
    for layer in (2, [1, 3]) if name == "fastv" else (0, [0, 2]):
        keep = 0.5 if isinstance(layer, int) else [0.6, 0.2]
        strategy = cls(keep=keep, layer=layer, past=past, positions=positions)
        for rows in (RAGGED[:1], RAGGED):
            inputs = make_inputs(model, variant, rows)
            with sl.apply(model, strategy) as run:
                out = model.generate(
                    **inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True, output_logits=True
                )
                again = model(**inputs, use_cache=False).logits
            turn = turn_of(run.reports[0], inputs["input_ids"], IMAGE)
            want = oracle_logits(untouched, [strategy], [turn], out.sequences, inputs["attention_mask"], inputs)
            assert (torch.stack(out.logits, 1) - want[:, -5:-1]).abs().max() < 1e-4
            assert (again[:, -1] - want[:, -5]).abs().max() < 1e-4
