"""Conversations longer than the windows of some layers: these count the conversation, not what is left of it."""

import logging

import pytest
import torch
from counting import Counting
from matrix import PLACEHOLDERS
from plan import covering, in_turns
from test_decoding import steps
from transformers import DynamicCache, StaticCache

import seeless as sl
from oracle import MaskOracle, turn_of
from seeless.core.host import CACHE
from tinies import RAGGED, make_inputs
from tinies.windowed import WINDOWED

METHODS = {
    "entry": sl.FasterVLM(keep=5),
    "renumbered": sl.Random(keep=0.4, positions="renumber"),
    "one layer": sl.FastV(keep=0.4, layer=2),
    "trimmed": sl.FastV(keep=0.3, layer=4, past="trim"),
    "several layers": sl.PyramidDrop(keep=[0.7, 0.4, 0.2]),
    "both": [sl.Random(keep=0.6), sl.FastV(keep=3, layer=3)],
}
EARLY = {  # where later layers take keys and values of the third on
    **METHODS,
    "trimmed": sl.FastV(keep=0.3, layer=2, past="trim"),
    "several layers": sl.PyramidDrop(keep=[0.6, 0.3], layer=[1, 2]),
    "both": [sl.Random(keep=0.6), sl.FastV(keep=3, layer=2)],
}
every = pytest.mark.parametrize("own", WINDOWED, ids=str)


def method(own, name):
    return (EARLY if own.name.startswith("gemma4-small") else METHODS)[name]


def strategies(own, name):
    return found if isinstance(found := method(own, name), list) else [found]


def words(batch, count, seed=0):
    return torch.randint(3, 90, (batch, count), generator=torch.Generator().manual_seed(seed))


def window(model):
    return model.config.get_text_config().sliding_window


def whole(own, inputs, ids):
    """The inputs of a conversation that goes on with text."""
    return {**own.extend(inputs, ids.shape[1] - inputs["input_ids"].shape[1]), "input_ids": ids}


def go_on(model, own, inputs, ids, cache, start, pieces):
    """Logits of `ids[:, start:]` on a cache, in pieces of so many tokens, with the mask of the whole conversation."""
    logits = []
    mask = own.extend(inputs, ids.shape[1] - inputs["input_ids"].shape[1])["attention_mask"]
    for count in pieces:
        given = {"input_ids": ids[:, start : start + count], "attention_mask": mask[:, : start + count]}
        logits.append(model(**given, **{CACHE: cache}).logits)
        start += count
    assert start == ids.shape[1]
    return torch.cat(logits, 1)


def slides(model):
    """Of every layer, whether it slides."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [kind == "sliding_attention" for kind in kinds]


def held(model, cache):
    """Columns in the cache of every layer that slides."""
    return [layer.keys.shape[2] for own, layer in zip(slides(model), cache.layers, strict=True) if own]


CACHES = {
    "own": lambda model: None,  # forgets what the window leaves behind
    "keeps": lambda model: DynamicCache(),
    "static": lambda model: StaticCache(config=model.config.get_text_config(), max_cache_len=200),
}


ALONE = [[5, "image:0", 9]]  # nothing is padding, so there is no mask to begin with


def within(model, own):
    """A prompt of one token less than the window, if a picture leaves room for it."""
    length = make_inputs(model, own, [[1, "image:0", 2]])["input_ids"].shape[1]
    return [[window(model) - length if length <= window(model) else 1, "image:0", 2]]


@covering(name=METHODS, own=WINDOWED, backend=["eager", "sdpa"])
@torch.no_grad()
def test_prefill_a_turn_of_text_and_steps(tiny, own, name, backend):
    """Several tokens at once, then one by one until all images are out of reach; caches that forget, and others."""
    model, untouched = tiny(own, backend), tiny(own, "untouched")
    short = within(model, own)
    for rows in (RAGGED, ALONE, short):
        inputs = make_inputs(model, own, rows)
        prompt = inputs["input_ids"].shape[1]
        ids = torch.cat([inputs["input_ids"], words(len(rows), 35)], 1)
        assert prompt > window(model) or (rows is short and prompt == window(model) - 1)
        kept = None
        for make in list(CACHES.values())[: 1 if rows is short else None]:
            with sl.apply(model, method(own, name)) as run:
                out = model(**inputs, **{CACHE: make(model)})
                later = go_on(model, own, inputs, ids, out[CACHE], prompt, [1, 1, 4, 1, 1, 5, 9, 9, 1, 1, 1, 1])
            logits = torch.cat([out.logits, later], 1)
            if kept is None:
                kept = run.report.stages[-1].kept
                turn = turn_of(run.report, inputs["input_ids"], PLACEHOLDERS)
                full = whole(own, inputs, ids)
                with MaskOracle(untouched, strategies(own, name), [turn], full["attention_mask"]):
                    want = untouched(**full, use_cache=False).logits
                assert max(held(model, out[CACHE])) < window(model)
            assert all(torch.equal(a, b) for a, b in zip(kept, run.report.stages[-1].kept, strict=True))
            text = ~torch.isin(ids, torch.tensor(PLACEHOLDERS)) & full["attention_mask"].bool()
            assert (logits - want)[text].abs().max() < 1e-4
    plain = untouched(**full, use_cache=False).logits
    assert (plain - want)[text].abs().max() > 1e-2


def with_images(own, turns):
    """One conversation from turns of text and one image for either row: all of it, and turn by turn."""
    by_image = ("pixel_values", "image_position_ids")
    images = {key: torch.stack([turn[key] for turn in turns], 1).flatten(0, 1) for key in by_image if key in turns[0]}
    return {**{key: torch.cat([turn[key] for turn in turns], 1) for key in turns[0] if key not in images}, **images}


@in_turns(own=WINDOWED, name=METHODS)
@torch.no_grad()
def test_an_image_in_a_later_turn(tiny, own, name):
    """The first image is out of reach, or half of it, when the second comes; rows are padded in between."""
    if own.name.startswith("paligemma"):
        pytest.skip("a later prompt does not see itself both ways, which the oracle's one pass cannot say")
    backend = ["eager", "sdpa"][list(METHODS).index(name) % 2]
    model, untouched = tiny(own, backend), tiny(own, "untouched")
    for gap in (1, 12):
        turns = [
            make_inputs(model, own, rows)
            for rows in ([[5, "image:0", gap], [9, "image:2", gap]], [[3, "image:2", 4], [1, "image:0", 6]])
        ]
        full = with_images(own, turns)
        prompt, ids = turns[0]["input_ids"].shape[1], torch.cat([full["input_ids"], words(2, 12, 1)], 1)
        for make in CACHES.values():
            with sl.apply(model, method(own, name)) as run:
                out = model(**turns[0], **{CACHE: make(model)})
                middle = full["input_ids"].shape[1]
                second = {**turns[1], "attention_mask": full["attention_mask"]}
                again = model(**second, **{CACHE: out[CACHE]})
                later = go_on(model, own, full, ids, again[CACHE], middle, [3, *[1] * 9])
            logits = torch.cat([out.logits, again.logits, later], 1)
            found = [
                turn_of(run.reports[0], turns[0]["input_ids"], PLACEHOLDERS),
                turn_of(run.reports[1], full["input_ids"], PLACEHOLDERS, prompt),
            ]
            given = whole(own, full, ids)
            with MaskOracle(untouched, strategies(own, name), found, given["attention_mask"]):
                want = untouched(**given, use_cache=False).logits
            text = ~torch.isin(ids, torch.tensor(PLACEHOLDERS)) & given["attention_mask"].bool()
            assert (logits - want)[text].abs().max() < 1e-4


class Reading(sl.LayerStrategy):
    """Keeps the tokens that the last one, and a few before it, attend to the most; notes what it read."""

    def score(self, ctx):
        READ.append(
            (self.layer, ctx.attention(queries="last", layer=self.layer - 1), ctx.attention("last", layer=self.layer))
        )
        return ctx.attention(queries="last").mean((1, 2))


READ = []


@every
@torch.no_grad()
def test_attention_that_is_read_ends_at_the_window(tiny, own):
    """Of the layer before a stage, and of the one behind it as if it ran on the same: the untouched model's own."""
    untouched = tiny(own, "untouched")
    inputs = make_inputs(untouched, own, [[5, "image:0", 12]])
    visual = torch.isin(inputs["input_ids"][0], torch.tensor(PLACEHOLDERS))
    attentions = untouched(**inputs, output_attentions=True).attentions
    for layer in (1, 2) if own.name.startswith("gemma4-small") else (1, 2, 3):
        model = tiny(own, "sdpa")
        READ.clear()
        with sl.apply(model, Reading(keep=0.5, layer=layer)):
            model(**inputs)
        ((_, before, coming),) = READ
        for have, index in ((before, layer - 1), (coming, layer)):
            assert (have[0, :, 0] - attentions[index][0, :, -1, visual]).abs().max() < 1e-5
    hidden = [bool((attention[0, :, -1, visual] == 0).all(0).any()) for attention in attentions]
    assert hidden == slides(untouched)


@torch.no_grad()
def test_a_kernel_that_counts_columns(tiny):
    """Right as long as it is given nothing else to count; a prefill beyond the window after tokens left is refused."""
    own = next(own for own in WINDOWED if own.name == "llava-mistral-windowed")
    model, untouched = tiny(own, "fused"), tiny(own, "untouched")
    for rows in ([[1, "image:0", 2]], [[1, "image:0", 2], [2, "image:1", 1]]):  # within the window
        for name in METHODS:
            inputs = make_inputs(model, own, rows)
            ids = torch.cat([inputs["input_ids"], words(len(rows), 35)], 1)
            prompt = inputs["input_ids"].shape[1]
            with sl.apply(model, method(own, name)) as run:
                out = model(**inputs)
                later = go_on(model, own, inputs, ids, out[CACHE], prompt, [*[1] * 20, 5, *[1] * 10])
            turn, full = turn_of(run.report, inputs["input_ids"], PLACEHOLDERS), whole(own, inputs, ids)
            with MaskOracle(untouched, strategies(own, name), [turn], full["attention_mask"]):
                want = untouched(**full, use_cache=False).logits
            assert (later - want[:, prompt:]).abs().max() < 1e-4
            with sl.apply(model, method(own, name)):
                cache = model(**inputs)[CACHE]
                with pytest.raises(sl.UnsupportedModel, match="of which some have left, for which attn"):
                    go_on(model, own, inputs, ids[:, : prompt + 6], cache, prompt, [6])
                with pytest.raises(sl.UnsupportedModel, match="load the model with 'sdpa' or 'eager'"):
                    model(**make_inputs(model, own, [[6, "image:0", 9]]))


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_rows_that_are_reordered_take_their_places_along(tiny, name):
    own = WINDOWED[-4]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, RAGGED)
    prompt, order = inputs["input_ids"].shape[1], torch.tensor([3, 1, 0, 1])
    ids = torch.cat([inputs["input_ids"], words(4, 8)], 1)
    with sl.apply(model, method(own, name)):
        want = go_on(model, own, inputs, ids, model(**inputs)[CACHE], prompt, [3, *[1] * 5])
        cache = model(**inputs)[CACHE]
        cache.reorder_cache(order)
        mixed = {**inputs, "attention_mask": inputs["attention_mask"][order]}
        have = go_on(model, own, mixed, ids[order], cache, prompt, [3, *[1] * 5])
    assert (have - want[order]).abs().max() < 1e-5


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_drafted_tokens(tiny, name, monkeypatch):
    """Prompt lookup where words repeat: plain greedy, though what a layer would have forgotten may come back."""
    monkeypatch.setattr(logging.getLogger("transformers.generation.utils"), "disabled", True)  # deprecated inside it
    for own in (WINDOWED[0], WINDOWED[-4]):
        model = tiny(own, "sdpa")
        inputs = make_inputs(model, own, [[5, "image:0", 9]])
        with sl.apply(model, method(own, name)):
            end = model.generate(**inputs, max_new_tokens=4, do_sample=False)[:, -4:]
            ids = torch.cat([inputs["input_ids"], end, inputs["input_ids"][:, -3:]], 1)
            given = whole(own, inputs, ids)
            plain = model.generate(**given, max_new_tokens=25, do_sample=False)
            assert torch.equal(
                model.generate(**given, max_new_tokens=25, do_sample=False, prompt_lookup_num_tokens=3), plain
            )


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_the_report_counts_what_caches_hold(tiny, name):
    """Layers that forget hold less, and layers whose heads differ hold more or less of a token."""
    for own in WINDOWED:
        model = tiny(own, "sdpa")
        inputs = make_inputs(model, own, ALONE)
        plain = model(**inputs)[CACHE]
        with sl.apply(model, method(own, name)) as run:
            cache = model(**inputs)[CACHE]
        layers = [[layer for layer in each.layers if layer.keys is not None] for each in (plain, cache)]
        held = [sum(4 * (layer.keys.numel() + layer.values.numel()) for layer in own) for own in layers]
        assert [run.report.kv_bytes_before, run.report.kv_bytes_after] == held, own


@every
@torch.no_grad()
def test_generating_with_a_static_cache(tiny, own):
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, RAGGED)
    options = {"max_new_tokens": 12, "do_sample": False, "disable_compile": True}
    for name in ("entry", "trimmed"):
        with sl.apply(model, method(own, name)):
            want = model.generate(**inputs, **options)
            assert torch.equal(model.generate(**inputs, **options, cache_implementation="static"), want)


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_masks_of_windows_wait_for_nothing(tiny, name):
    """Two waits more in a prefill, as within the window, and none in a step."""
    own = next(own for own in WINDOWED if own.name == "llava-ministral-windowed")
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, RAGGED)
    with Counting() as plain:
        model(**inputs)
    with sl.apply(model, method(own, name)):
        model(**inputs)  # what is read for the first time is compared
        with Counting() as reduced:
            model(**inputs)
        assert reduced.waits <= plain.waits + 2
        assert {waits for _, waits, _ in steps(model, inputs)} == {0}
