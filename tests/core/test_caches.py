"""Caches of every kind, cropped, copied, saved and shared between questions: what the default cache gives."""

import copy
import inspect
import logging
import pickle

import pytest
import torch
from saving import through_torch
from transformers import DynamicCache, GenerationConfig, LlamaConfig, LlamaForCausalLM, QuantizedCache, StaticCache
from transformers.cache_utils import QuantizedLayer, StaticLayer
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator
from transformers.models.llama.modeling_llama import LlamaModel

import seeless as sl
from seeless.core.host import CACHE
from tinies import TINIES
from tinies import make_inputs as tiny_inputs
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs

LLAVA, NEXT = VARIANTS[1], VARIANTS[4]
GEMMA, QWEN, SMOL = (next(t for t in TINIES if str(t).startswith(name)) for name in ("gemma3", "qwen2_5", "smolvlm"))
ENTRY = {
    "entry": sl.FasterVLM(keep=5),
    "entry, renumbered": sl.Random(keep=0.4, positions="renumber"),
    "tower": sl.ToMe(keep=0.5),
}
LAYERS = {
    "layers": sl.PyramidDrop(keep=[0.8, 0.5, 0.2]),
    "renumbered": sl.FastV(keep=0.4, layer=2, positions="renumber"),
    "trimmed": sl.PriorTR(keep=3, layer=3),
    "both": [sl.FasterVLM(keep=8), sl.FastV(keep=0.5, layer=3)],
}
EVERY = {**ENTRY, **LAYERS}
every = pytest.mark.parametrize("name", EVERY)
at_entry = pytest.mark.parametrize("name", ENTRY)
between = pytest.mark.parametrize("name", LAYERS)
alone_or_ragged = pytest.mark.parametrize("rows", [RAGGED[1:2], RAGGED], ids=["alone", "ragged"])


def generate(model, inputs, **options):
    options = {"max_new_tokens": 5, "do_sample": False, **options}
    return model.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)


def logits(out):
    return torch.stack(out.logits, 1)


def same(out, want):
    assert torch.equal(out.sequences, want.sequences)
    assert (logits(out) - logits(want)).abs().max() < 1e-5


def static(model, room=160):
    return StaticCache(config=model.config.text_config, max_cache_len=room)


def more_text(model, out, inputs, cache, count=6, **options):
    """A turn of text alone after what was generated, padded on the left in the second row."""
    text = torch.randint(3, 99, (len(out.sequences), count), generator=torch.Generator().manual_seed(4))
    ids = torch.cat([out.sequences, text], 1)
    mask = torch.nn.functional.pad(
        inputs["attention_mask"], (0, ids.shape[1] - inputs["attention_mask"].shape[1]), value=1
    )
    if len(ids) > 1:
        mask[1, -count : -count + 2] = 0
    return generate(model, {"input_ids": ids, "attention_mask": mask, CACHE: cache}, **options)


@every
@alone_or_ragged
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@torch.no_grad()
def test_static_caches(tiny, name, rows, backend):
    """Made by `generate`, given by hand, and filled again after a reset; a turn of text goes on in them."""
    model = tiny(LLAVA, backend)
    inputs = make_inputs(model, LLAVA, rows)
    with sl.apply(model, EVERY[name]):
        want = generate(model, inputs)
        then = more_text(model, want, inputs, want[CACHE])
        same(generate(model, inputs, cache_implementation="static"), want)
        cache = static(model)
        for _ in range(2):
            out = generate(model, {**inputs, CACHE: cache})
            same(out, want)
            assert out[CACHE] is cache
            same(more_text(model, out, inputs, cache), then)
            cache.reset()


@pytest.mark.parametrize("first", [sl.FastV, sl.Uniform], ids=["reads", "reads nothing"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@torch.no_grad()
def test_a_static_cache_trimmed_between_two_stages_before_one_layer(tiny, first, backend):
    """What the second reads is what the layer computed, not what the first has made of the cache."""
    model = tiny(LLAVA, backend)
    inputs = make_inputs(model, LLAVA, RAGGED)
    with sl.apply(model, [first(keep=0.7, layer=2, past="trim"), sl.FastV(keep=0.5, layer=2)]) as run:
        want = generate(model, inputs)
        same(generate(model, inputs, cache_implementation="static"), want)
    for ours, its in zip(*(report.stages[1].scores for report in run.reports), strict=True):
        assert (ours - its).abs().nan_to_num().amax() < 1e-6 if len(ours) else len(its) == 0


@pytest.mark.parametrize("own", [GEMMA, QWEN], ids=str)
@pytest.mark.parametrize("name", ["entry", "layers"])
@torch.no_grad()
def test_static_caches_of_families_with_masks_or_positions_of_their_own(tiny, own, name):
    model = tiny(own, "sdpa")
    inputs = tiny_inputs(model, own, [[5, "image:0", 9], [3, "image:1", 4, "image:2", 6]])
    with sl.apply(model, EVERY[name]):
        want = generate(model, inputs)
        same(generate(model, inputs, cache_implementation="static"), want)


@torch.no_grad()
def test_static_caches_compiled(tiny):
    """Compiled decoding runs; the seams make it fall back to plain Python where they stand."""
    from transformers import CompileConfig

    model = VARIANTS[1].build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])
    compiled = CompileConfig(backend="eager", fullgraph=False)
    compiled._compile_all_devices = True
    with sl.apply(model, sl.FasterVLM(keep=5)):
        want = generate(model, inputs, max_new_tokens=3)
        same(generate(model, inputs, max_new_tokens=3, cache_implementation="static", compile_config=compiled), want)


class Lossless(QuantizedLayer):
    """A quantised layer whose numbers keep all their bits, in place of packages that would round them."""

    def _quantize(self, tensor, axis):
        return tensor

    def _dequantize(self, tensor):
        return tensor


def quantized(model):
    cache = QuantizedCache.__new__(QuantizedCache)
    super(QuantizedCache, cache).__init__(
        layers=[Lossless(residual_length=4) for _ in model.model.language_model.layers]
    )
    return cache


@at_entry
@alone_or_ragged
@torch.no_grad()
def test_quantised_caches_after_an_entry_cut(tiny, name, rows):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, rows)
    with sl.apply(model, EVERY[name]):
        want = generate(model, inputs)
        out = generate(model, {**inputs, CACHE: quantized(model)})
        same(out, want)
        same(more_text(model, out, inputs, out[CACHE]), more_text(model, want, inputs, want[CACHE]))


class NoStream:
    """A stand-in for streams of a GPU."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def wait_stream(self, other):
        pass


def offloaded():
    cache = DynamicCache()
    cache.offloading, cache.only_non_sliding, cache.prefetch_stream = True, True, NoStream()
    return cache


@at_entry
@torch.no_grad()
def test_offloaded_caches_after_an_entry_cut(tiny, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: NoStream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    with sl.apply(model, EVERY[name]):
        want = generate(model, inputs)
        out = generate(model, {**inputs, CACHE: offloaded()})
        same(out, want)
        same(more_text(model, out, inputs, out[CACHE]), more_text(model, want, inputs, want[CACHE]))


@between
@torch.no_grad()
def test_quantised_caches_and_other_peoples_are_refused_between_layers(tiny, name):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])

    class Mine(DynamicCache):
        pass

    with sl.apply(model, EVERY[name]):
        for cache, kind in ((quantized(model), "QuantizedCache"), (offloaded(), "offloaded")):
            with pytest.raises(sl.UnsupportedModel, match=rf"between layers with .*{kind}.*acts at the entry"):
                model(**inputs, **{CACHE: cache})
        with pytest.raises(sl.UnsupportedModel, match=r"Mine.*DynamicCache.*StaticCache"):
            model(**inputs, **{CACHE: Mine()})


@torch.no_grad()
def test_ready_made_masks_are_refused(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])
    length = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    with sl.apply(model, sl.FasterVLM(keep=5)), pytest.raises(sl.InputError, match="4-D"):
        model(**inputs)


# Crops.


@every
@pytest.mark.parametrize("make", [DynamicCache, static], ids=["dynamic", "static"])
@pytest.mark.parametrize("variant", [LLAVA, NEXT], ids=str)
@torch.no_grad()
def test_a_crop_back_to_the_images(tiny, name, make, variant):
    """All text behind the images taken away, and put back token by token, or at once."""
    if make is static and not hasattr(StaticLayer, "crop"):
        pytest.skip("this release of transformers crops no static cache")
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, [[5, "image:0", 9]])
    ids = inputs["input_ids"]
    text = ids.shape[1] - 1 - int((ids[0] == IMAGE).nonzero()[-1])
    with sl.apply(model, EVERY[name]):
        cache = DynamicCache() if make is DynamicCache else make(model)
        want = model(**inputs, **{CACHE: cache}).logits
        after = model(input_ids=torch.tensor([[7]]), **{CACHE: cache}).logits
        if name == "trimmed":  # in its prefill the text saw, in early layers, what has left since
            cache.crop(-(text + 1))
            want = want.clone()
            want[:, -text:] = model(input_ids=ids[:, -text:], **{CACHE: cache}).logits
            after = model(input_ids=torch.tensor([[7]]), **{CACHE: cache}).logits
        for pieces in ([1] * text, [text], [2, text - 2]):
            cache.crop(-(text + 1))
            assert int(cache.get_seq_length()) == ids.shape[1] - text
            place = ids.shape[1] - text
            for piece in pieces:
                out = model(input_ids=ids[:, place : place + piece], **{CACHE: cache}).logits
                place += piece
                assert (out[:, -1] - want[:, place - 1]).abs().max() < 1e-4
            again = model(input_ids=torch.tensor([[7]]), **{CACHE: cache}).logits
            assert (again - after).abs().max() < 1e-5
        with pytest.raises(sl.InputError, match=f"crop to {ids.shape[1] - text} or more"):
            cache.crop(-(text + 2))


@torch.no_grad()
def test_a_crop_by_a_positive_number_means_what_it_means_without_a_handle(tiny, monkeypatch):
    """The length that stays, dropped tokens included, in releases that take one; else the release's own refusal."""
    monkeypatch.setattr(logging.getLogger("transformers.cache_utils"), "disabled", True)  # deprecated where it is taken
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    length = inputs["input_ids"].shape[1]
    plain = model(**inputs)[CACHE]
    with sl.apply(model, sl.FastV(keep=0.4, layer=2)):
        cache = model(**inputs)[CACHE]
        held = [layer.keys.shape[2] for layer in cache.layers]
        try:
            plain.crop(length - 3)
        except ValueError as error:
            with pytest.raises(ValueError, match=str(error)[:20]):
                cache.crop(length - 3)
            return
        cache.crop(length + 5)
        assert cache.get_seq_length() == length
        cache.crop(length - 3)
        assert cache.get_seq_length() == plain.get_seq_length() == length - 3
        assert [layer.keys.shape[2] for layer in cache.layers] == [n - 3 for n in held]


@between
@torch.no_grad()
def test_a_crop_of_a_ragged_batch(tiny, name):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    text = torch.randint(3, 99, (4, 6), generator=torch.Generator().manual_seed(4))
    pad = torch.nn.functional.pad
    padded = pad(inputs["attention_mask"], (0, 6), value=1)
    padded[1, -6:-3] = 0

    def go_on(cache, given, mask):
        return model(input_ids=given, attention_mask=mask, **{CACHE: cache}).logits

    with sl.apply(model, EVERY[name]):
        cache = model(**inputs)[CACHE]
        if name == "trimmed":  # in its prefill the last token saw, in early layers, what has left since
            cache.crop(-1)
            go_on(cache, inputs["input_ids"][:, -1:], inputs["attention_mask"])
        fresh = copy.deepcopy(cache)
        first = go_on(cache, text, padded)
        cache.crop(-6)  # what was learnt of the padding goes, too
        whole = pad(inputs["attention_mask"], (0, 6), value=1)
        assert (go_on(cache, text, whole) - go_on(fresh, text, whole)).abs().max() < 1e-5
        cache.crop(-7)
        keep = whole[:, :-7]
        last = inputs["input_ids"][:, -1:]
        go_on(cache, last, pad(keep, (0, 1), value=1))
        again = go_on(cache, text, padded)
        valid = padded[:, -6:].bool()
        assert (first - again)[valid].abs().max() < 1e-4


@torch.no_grad()
def test_rows_padded_on_the_right_cannot_be_cropped_into_the_prompt(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED, "right")
    with sl.apply(model, sl.FastV(keep=0.5)):
        cache = model(**inputs)[CACHE]
        with pytest.raises(sl.InputError, match="cannot be cropped"):
            cache.crop(-1)


# Drafts.


def draft():
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    config.pad_token_id, config.eos_token_id = 0, None
    model = LlamaForCausalLM(config).eval()
    model.generation_config.pad_token_id = 0
    return model


@pytest.fixture
def quiet(monkeypatch):
    """Of its calls of assistants transformers says itself that they are deprecated."""
    monkeypatch.setattr(logging.getLogger("transformers.generation.utils"), "disabled", True)


@every
@torch.no_grad()
def test_drafted_tokens(tiny, name, quiet, monkeypatch):
    """A draft model; prompt lookup where the words repeat; drafts of which the first are right: plain greedy."""
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])
    with sl.apply(model, EVERY[name]) as run:
        end = generate(model, inputs, max_new_tokens=4).sequences[:, -4:]
        ids = torch.cat([inputs["input_ids"], end, inputs["input_ids"][:, -3:]], 1)
        inputs = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        plain = generate(model, inputs, max_new_tokens=10)
        kept = [[own.tolist() for own in stage.kept] for stage in run.report.stages]

        def check(**options):
            count = len(run.reports)
            out = model.generate(**inputs, max_new_tokens=10, do_sample=False, **options)
            assert torch.equal(out, plain.sequences) and len(run.reports) == count + 1
            assert [[own.tolist() for own in stage.kept] for stage in run.report.stages] == kept

        check(assistant_model=draft())
        check(prompt_lookup_num_tokens=3)
        for right in (1, 2, 3):

            def candidates(self, input_ids, *args, right=right, **kwargs):
                drafts = plain.sequences[:, input_ids.shape[1] :][:, :3].clone()
                drafts[:, right:] = 98 - drafts[:, right:]
                return torch.cat([input_ids, drafts], 1), None

            monkeypatch.setattr(PromptLookupCandidateGenerator, "get_candidates", candidates)
            check(prompt_lookup_num_tokens=3)


@torch.no_grad()
def test_drafts_come_with_their_states(tiny, quiet, monkeypatch):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    options = {"output_hidden_states": True, "prompt_lookup_num_tokens": 3}
    with sl.apply(model, sl.FastV(keep=3)):
        plain = generate(model, inputs, output_hidden_states=True)

        def candidates(self, input_ids, *args, **kwargs):
            return plain.sequences[:, : input_ids.shape[1] + 3], None

        monkeypatch.setattr(PromptLookupCandidateGenerator, "get_candidates", candidates)
        out = generate(model, inputs, **options)
        same(out, plain)
        for number in (0, -1):  # those between transformers cuts out at the wrong places, with or without a handle
            have, want = out.hidden_states[number], plain.hidden_states[number]
            assert all((a - b).abs().max() < 1e-4 for a, b in zip(have, want, strict=True))
        with pytest.raises(sl.InputError, match="output_attentions"):
            generate(model, inputs, output_attentions=True, **options)


# Copies.


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda cache: pickle.loads(pickle.dumps(cache)),
    "torch.save": through_torch,
}


@every
@pytest.mark.parametrize("way", COPIES)
@torch.no_grad()
def test_copies_of_a_reduced_cache(tiny, name, way):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    with sl.apply(model, EVERY[name]):
        for cache in (DynamicCache(), static(model)):
            out = generate(model, {**inputs, CACHE: cache})
            twin = COPIES[way](out[CACHE])
            want = more_text(model, out, inputs, out[CACHE])
            same(more_text(model, out, inputs, twin), want)
            assert twin.layers[0].keys is not out[CACHE].layers[0].keys


@torch.no_grad()
def test_a_loaded_cache_belongs_to_nobody_until_a_handle_takes_it(tiny):
    for own, make in ((LLAVA, make_inputs), (GEMMA, tiny_inputs)):
        model = tiny(own, "sdpa")
        inputs = make(model, own, [[5, "image:0", 9]])
        with sl.apply(model, sl.FastV(keep=0.5)):
            cache = model(**inputs)[CACHE]
            saved = pickle.dumps(cache)
            want = model(input_ids=torch.tensor([[7]]), **{CACHE: cache}).logits
        with pytest.raises(sl.InputError, match="handle has been removed"):
            model(input_ids=torch.tensor([[7]]), **{CACHE: pickle.loads(saved)})
        with sl.apply(model, sl.FastV(keep=0.5)):
            assert torch.equal(model(input_ids=torch.tensor([[7]]), **{CACHE: pickle.loads(saved)}).logits, want)


@at_entry
@pytest.mark.parametrize("make", [DynamicCache, static], ids=["dynamic", "static"])
@torch.no_grad()
def test_one_reduced_prefix_for_many_questions(tiny, name, make):
    """System prompt and image prefilled once; every question goes on in a copy: what prefilling everything gives."""
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    prefix = int((inputs["input_ids"][0] == IMAGE).nonzero()[-1]) + 1
    first = {**inputs, "input_ids": inputs["input_ids"][:, :prefix], "attention_mask": torch.ones(1, prefix).long()}
    with sl.apply(model, EVERY[name]) as run:
        shared = DynamicCache() if make is DynamicCache else make(model)
        model(**first, **{CACHE: shared})
        for seed in range(3):
            words = torch.randint(3, 99, (1, 4 + seed), generator=torch.Generator().manual_seed(seed))
            ids = torch.cat([inputs["input_ids"][:, :prefix], words], 1)
            whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            want = generate(model, whole)
            count = len(run.reports)
            text = {name: whole[name] for name in ("input_ids", "attention_mask")}
            out = generate(model, {**text, CACHE: copy.deepcopy(shared)})
            assert len(run.reports) == count
            assert torch.equal(out.sequences, want.sequences)
            assert (logits(out) - logits(want)).abs().max() < 1e-4


@torch.no_grad()
def test_a_prefix_without_the_question_is_refused_where_it_is_read(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [[5, "image:0"]])
    for strategy in (sl.PriorTR(keep=3), sl.SparseVLM(keep=[0.6, 0.4, 0.2])):
        with sl.apply(model, strategy), pytest.raises(sl.InputError, match="no token follows"):
            model(**inputs)


@at_entry
@torch.no_grad()
def test_chunks_of_a_long_question(tiny, name):
    """`prefill_chunk_size` for a turn of text after the image: what one chunk gives."""
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    plain = generate(model, inputs)
    twin = copy.deepcopy(plain[CACHE])
    more_text(model, plain, inputs, twin, count=11, prefill_chunk_size=4)
    if twin.get_seq_length() > plain.sequences.shape[1] + 20:
        pytest.skip("this release of transformers runs the whole conversation again, with or without a handle")
    with sl.apply(model, EVERY[name]):
        out = generate(model, inputs)
        want = more_text(model, out, inputs, copy.deepcopy(out[CACHE]), count=11)
        chunks = more_text(model, out, inputs, out[CACHE], count=11, prefill_chunk_size=4)
        assert torch.equal(chunks.sequences, want.sequences)
        assert (logits(chunks) - logits(want)).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["entry, renumbered", "layers"])
@torch.no_grad()
def test_chunks_of_a_padded_question(tiny, name, monkeypatch):
    """The decoder takes in so many tokens at a time, whatever the method; padding that would come alone is refused."""
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[0], RAGGED[3]])
    plain = generate(model, inputs)
    twin = copy.deepcopy(plain[CACHE])
    more_text(model, plain, inputs, twin, count=11, prefill_chunk_size=4)
    if twin.get_seq_length() > plain.sequences.shape[1] + 20:
        pytest.skip("this release of transformers runs the whole conversation again, with or without a handle")
    seen, forward = [], LlamaModel.forward

    def watched(self, *args, **kwargs):
        seen.append(kwargs["inputs_embeds"].shape[1])
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaModel, "forward", watched)
    with sl.apply(model, EVERY[name]):
        out = generate(model, inputs)
        want = more_text(model, out, inputs, copy.deepcopy(out[CACHE]), count=11)
        for size in (3, 4):
            seen.clear()
            same(more_text(model, out, inputs, copy.deepcopy(out[CACHE]), count=11, prefill_chunk_size=size), want)
            assert seen[:3] == [size] * 3
        with pytest.raises(sl.InputError, match="padding comes as a chunk of one token"):
            more_text(model, out, inputs, copy.deepcopy(out[CACHE]), count=11, prefill_chunk_size=1)


@torch.no_grad()
def test_images_in_several_chunks_are_refused_between_layers(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    pixels = inputs.pop("pixel_values")
    with sl.apply(model, sl.FastV(keep=5)):
        given = [{"pixel_values": pixels}]
        if "mm_encoder_outputs" in inspect.signature(model.model.forward).parameters:
            given.append({"mm_encoder_outputs": {"image": model.get_image_features(pixels)}})
        for images in given:
            for how in ({"prefill_chunk_size": 8}, {"generation_config": GenerationConfig(prefill_chunk_size=8)}):
                with pytest.raises(sl.InputError, match="prefill_chunk_size=8"):
                    model.generate(**inputs, **images, **how)


# What rows and training do to caches.


@torch.no_grad()
def test_a_rows_cache_in_a_batch_is_the_rows_cache_alone(tiny):
    """Where one row drops tokens and another does not, the other's cache stays as it is alone."""
    model = tiny(LLAVA, "sdpa")
    rows = [[5, "image:0", 9], [3, "image:1", 4, "image:2", 6]]
    strategy = [sl.FastV(keep=0.5, layer=2), sl.PriorTR(keep=10, layer=4)]
    inputs = make_inputs(model, LLAVA, rows)
    with sl.apply(model, strategy):
        together = model(**inputs)[CACHE]
        answers = generate(model, inputs)
        for number, row in enumerate(rows):
            alone = make_inputs(model, LLAVA, [row])
            cache = model(**alone)[CACHE]
            for layer in range(6):
                values = cache.layers[layer].values[0]  # keys know where a row begins

                own = together.layers[layer].values[number]
                record = together._seeless_record.span(layer)
                valid = (
                    torch.ones(own.shape[1]).bool() if record.valid is None else record.valid[number, : own.shape[1]]
                )
                assert (own[:, valid] - values).abs().max() < 1e-4
            assert (logits(generate(model, alone))[0] - logits(answers)[number]).abs().max() < 1e-4


@pytest.mark.parametrize("own", [LLAVA, SMOL], ids=str)
def test_a_cache_that_checkpointing_leaves_empty(own):
    """Layers that are computed again in training cache nothing, though they are handed a cache."""
    model = own.build("sdpa").train()
    make = make_inputs if own is LLAVA else tiny_inputs
    inputs = make(model, own, [[5, "image:0", 9]])
    (getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable)()
    for strategy in (sl.PriorTR(keep=3, layer=2), sl.FastV(keep=3, layer=2, past="trim"), sl.FasterVLM(keep=5)):
        with sl.apply(model, strategy) as run:
            out = model(**inputs, use_cache=True)
            out.logits.sum().backward()
        assert run.report.n_after == ([5] if strategy.name == "fastervlm" else [3])


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("past", [0, 4])
def test_trimming_takes_what_indexing_takes(heads, past):
    from seeless.core.cache import trim

    generator = torch.Generator().manual_seed(0)
    keys, values = (
        torch.randn(2, heads, past + 7, 5, generator=generator),
        torch.randn(2, heads, past + 7, 6, generator=generator),
    )
    order = torch.tensor([[-1, 0, 3, 6], [1, 2, 4, 5]])
    caches = DynamicCache(), StaticCache(config=LlamaConfig(num_hidden_layers=1), max_cache_len=20)
    for cache in caches:
        cache.update(keys.clone(), values.clone(), 0)
        trim(cache, 0, past, order)
        assert int(cache.layers[0].get_seq_length()) == past + 4
        for x, have in ((keys, cache.layers[0].keys), (values, cache.layers[0].values)):
            assert torch.equal(have[:, :, :past], x[:, :, :past])
            for row in range(2):
                for slot, column in enumerate(order[row].tolist()):
                    want = torch.zeros_like(x[row, :, 0]) if column < 0 else x[row, :, past + column]
                    assert torch.equal(have[row, :, past + slot], want)


@pytest.mark.parametrize("strategy", [sl.Random(keep=3), sl.FastV(keep=0.5)], ids=str)
@torch.no_grad()
def test_a_later_mask_cannot_hide_what_was_seen(tiny, strategy):
    """Neither at once nor after turns, whose own padding stays hidden; a turn with a picture asks, too."""
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[1], RAGGED[0]])
    picture = make_inputs(model, LLAVA, [[2, "image:1", 3], [2, "image:1", 3]])
    text = torch.tensor([[4, 5, 6], [4, 5, 6]])
    with sl.apply(model, strategy):
        cache, mask = model(**inputs)[CACHE], inputs["attention_mask"]
        assert not mask[1, 0]
        for turn in range(3):
            new = [[1, 1, 1], [0, 1, 1]] if turn == 1 else [[1, 1, 1], [1, 1, 1]]
            mask = torch.cat([mask, torch.tensor(new)], 1)
            wrong = mask.clone()
            wrong[1, int(mask[1].argmax())] = 0
            wide = torch.nn.functional.pad(wrong[:, :-3], (0, picture["input_ids"].shape[1]), value=1)
            with pytest.raises(sl.InputError, match="hides 1 tokens of row 1"):
                model(input_ids=text, attention_mask=wrong, **{CACHE: cache})
            with pytest.raises(sl.InputError, match="hides 1 tokens of row 1"):
                model(**{**picture, "attention_mask": wide}, **{CACHE: cache})
            model(input_ids=text, attention_mask=mask, **{CACHE: cache})
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
            model(input_ids=text[:, :1], attention_mask=mask, **{CACHE: cache})
        cache.batch_select_indices(torch.tensor([1]))
        mask = torch.nn.functional.pad(mask[1:], (0, 3), value=1)
        model(input_ids=text[:1], attention_mask=mask, **{CACHE: cache})
