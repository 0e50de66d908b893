"""Steps that read a part of what is cached: equal to a model told not to see the rest, and the cache stays as it is."""

import math

import pytest
import torch

import seeless as sl
from fake_context import cosine, top
from layer_loop import decoder_of
from oracle import oracle_of, turn_of
from seeless.core.host import CACHE
from tinies import RAGGED, RAGGED_VIDEO, TINIES, make_inputs
from tinies.windowed import WINDOWED
from tiny_models import BACKENDS

PLACEHOLDERS = [99, 98]
STEPS = 5
NAMES = ("llava-llama-mha", "llava_next-mistral-gqa", "qwen2_5_vl", "llava_onevision", "smolvlm")
BEYOND = [tiny for tiny in WINDOWED if "ministral" in str(tiny) or str(tiny).startswith("gemma3")]  # of their windows
OWN = [tiny for tiny in TINIES if str(tiny) in NAMES] + BEYOND
STRATEGIES = {
    "alone": [sl.DyCoke(drop=0.6, unread=0.6)],
    "as released": [sl.DyCoke(unread=0.6, as_released=True)],
    "behind a cut": [sl.FastV(keep=0.6, layer=2), sl.DyCoke(drop=0.6, unread=0.4, read_layer=3)],
}


def chosen_of(attention, unread, as_released):
    """Of one row: places read at each step, from `[steps][places]`, attention to the visual tokens."""
    found, before = [], None
    for now in attention:
        own = top(now, math.floor(len(now) * (1 - unread)))
        if before is not None and cosine(now, before) >= 0.9:
            own = list(range(len(now))) if as_released else found[-1]
        found.append(own)
        before = now
    return found


def rows_for(own):
    return RAGGED_VIDEO if "video" in own.kinds else RAGGED


def in_turns():
    """Every family and strategy on one backend, the first family on all."""
    for number, own in enumerate(OWN):
        for turn, name in enumerate(STRATEGIES):
            backends = ("eager", "sdpa") if own in BEYOND else BACKENDS
            for backend in backends if number == 0 else [backends[(number + turn) % len(backends)]]:
                yield pytest.param(own, name, backend, id=f"{own}-{name}-{backend}")


@pytest.mark.parametrize(("own", "name", "backend"), list(in_turns()))
@torch.no_grad()
def test_steps_equal_a_model_told_what_not_to_see(tiny, own, name, backend):
    model, untouched, strategies = tiny(own, backend), tiny(own, "untouched"), STRATEGIES[name]
    inputs = make_inputs(untouched, own, rows_for(own))
    prompt, reader = inputs["input_ids"].shape[1], strategies[-1]
    with sl.apply(model, strategies) as run:
        out = model.generate(
            **inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    full = {**own.extend(inputs, STEPS), "input_ids": out.sequences}
    turn = turn_of(run.reports[0], inputs["input_ids"], PLACEHOLDERS)
    oracle = oracle_of(untouched, strategies, [turn], full["attention_mask"])
    layer = decoder_of(untouched).layers[reader.read_layer - 1].self_attn
    maps = []
    hook = layer.register_forward_hook(lambda module, args, output: maps.append(output[1]))
    with oracle:
        plain = untouched(**full, use_cache=False).logits
        hook.remove()
        for row, columns in enumerate(turn.columns):
            kept = columns[run.reports[0].stages[-1].kept[row]]
            attention = maps[0][row, :, prompt:-1].mean(0)[:, kept].double().tolist()
            for step, read in enumerate(chosen_of(attention, reader.unread, reader.as_released)):
                unread = [int(column) for i, column in enumerate(kept) if i not in read]
                oracle.hidden[reader.read_layer :, row, prompt + step, unread] = True
        want = untouched(**full, use_cache=False).logits
    assert (torch.stack(out.logits, 1) - want[:, prompt - 1 : -1]).abs().max() < 1e-4
    assert (plain - want)[:, prompt:-1].abs().max() > 1e-3  # it does change what is answered


@pytest.mark.parametrize("own", OWN[:3], ids=str)
@torch.no_grad()
def test_the_cache_is_the_one_it_would_be(tiny, own):
    """Of the prompt every column stays as it is; all layers grow by every token."""
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, rows_for(own)[:1])
    caches = []
    for strategy in (sl.DyCoke(drop=0.6, unread=0.7), sl.DyCoke(drop=0.6)):
        with sl.apply(model, strategy):
            cache = model(**inputs)[CACHE]
            before = [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]
            for token in (5, 6, 7):
                cache = model(input_ids=torch.tensor([[token]]), **{CACHE: cache})[CACHE]
        caches.append(cache)
        for layer, (keys, values) in zip(cache.layers, before, strict=True):
            columns = keys.shape[2]
            assert torch.equal(layer.keys[:, :, :columns], keys) and torch.equal(layer.values[:, :, :columns], values)
            assert layer.keys.shape[2] == columns + 3
    for number, (chosen, whole) in enumerate(zip(*(cache.layers for cache in caches), strict=True)):
        assert chosen.keys.shape == whole.keys.shape
        assert torch.equal(chosen.keys, whole.keys) == (number <= 3)  # layer 3 hands on something else


@torch.no_grad()
def test_beams_carry_their_own_choices(tiny):
    """With one beam more the first one's answer stays, where it is the best: reordered memories fit."""
    own = OWN[0]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, RAGGED)
    with sl.apply(model, sl.DyCoke(unread=0.6)):
        ids = model.generate(**inputs, max_new_tokens=4, num_beams=3, do_sample=False, num_return_sequences=3)
        scores = []
        for sequence in ids.view(len(RAGGED), 3, -1)[:, 0]:
            scores.append(sequence)
        alone = []
        for row, sequence in enumerate(scores):
            own_inputs = make_inputs(model, own, [RAGGED[row]])
            out = model(**own_inputs)
            total = 0.0
            for token in sequence[inputs["input_ids"].shape[1] :].tolist():
                total += float(out.logits[0, -1].log_softmax(-1)[token])
                out = model(input_ids=torch.tensor([[token]]), **{CACHE: out[CACHE]})
            alone.append(total)
        again = model.generate(
            **inputs, max_new_tokens=4, num_beams=3, do_sample=False, return_dict_in_generate=True, output_scores=True
        )
    assert torch.equal(again.sequences, torch.stack(scores))
    assert again.sequences_scores.tolist() == pytest.approx([total / 4 for total in alone], abs=1e-4)


@torch.no_grad()
def test_several_tokens_read_everything(tiny):
    own = OWN[0]
    model = tiny(own, "sdpa")
    inputs, text = make_inputs(model, own, RAGGED[:1]), torch.tensor([[5, 6, 7]])
    found = []
    for strategy in (sl.DyCoke(unread=0.6), sl.DyCoke()):
        with sl.apply(model, strategy):
            found.append(model(input_ids=text, **{CACHE: model(**inputs)[CACHE]}).logits)
    assert torch.equal(*found)


@torch.no_grad()
def test_what_cannot_work_is_refused(tiny):
    own = OWN[0]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, RAGGED[:1])
    with sl.apply(model, sl.DyCoke(unread=0.6)):
        with pytest.raises(sl.UnsupportedModel, match="unread, whose steps are compiled once"):
            model.generate(**inputs, max_new_tokens=2, cache_implementation="static")
        with pytest.raises(sl.UnsupportedModel, match="an offloaded cache"):
            model.generate(**inputs, max_new_tokens=2, cache_implementation="offloaded")
    flexible = own.build("sdpa")
    flexible.model.language_model.set_attn_implementation("flex_attention")
    with (
        sl.apply(flexible, sl.DyCoke(unread=0.6)),
        pytest.raises(sl.UnsupportedModel, match="takes no mask known here"),
    ):
        flexible(**inputs)
    for strategies, message in (
        ([sl.DyCoke(unread=0.6), sl.DyCoke(unread=0.5)], "given twice"),
        ([sl.DyCoke(unread=0.6, read_layer=6)], "give 1 to 5"),
        ([sl.DyCoke(unread=0.6), sl.FastV(keep=0.5, layer=3)], "fastv drops tokens before layer 3"),
    ):
        with pytest.raises(sl.BudgetError, match=message):
            sl.apply(model, strategies)
    for name, message in (
        ("qwen3_5", "state in which no token can be left unread"),
        ("gemma3", "which looks back"),
    ):
        other = next(tiny for tiny in TINIES if str(tiny) == name)
        with pytest.raises(sl.UnsupportedModel, match=message):
            sl.apply(other.build("sdpa"), sl.DyCoke(unread=0.5, read_layer=1))


@torch.no_grad()
def test_a_cache_of_another_handle_is_refused(tiny):
    own = OWN[0]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, RAGGED[:1])
    for strategy in (sl.FastV(keep=0.5), sl.Random(keep=0.5)):
        with sl.apply(model, strategy):
            cache = model(**inputs)[CACHE]
        with sl.apply(model, sl.DyCoke(unread=0.5)):
            model(input_ids=torch.tensor([[5, 6]]), **{CACHE: cache})  # several tokens read everything
            with pytest.raises(sl.InputError, match="does not say which of its tokens"):
                model(input_ids=torch.tensor([[7]]), **{CACHE: cache})


@torch.no_grad()
def test_what_read_gives_is_checked(tiny):
    class Wrong(sl.EntryStrategy, sl.StepReader):
        def score(self, ctx):
            return ctx.index.float()

        def reads_from(self, depth):
            return 2

        def read(self, step):
            return step.attention.mean(1)

    own = OWN[0]
    model = tiny(own, "sdpa")
    with sl.apply(model, Wrong(keep=0.5)), pytest.raises(sl.StrategyError, match=r"read gave a torch\.float32 tensor"):
        model.generate(**make_inputs(model, own, RAGGED[:1]), max_new_tokens=2)
