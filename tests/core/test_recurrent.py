"""Decoders with recurrent layers: long conversations, ragged batches, caches, and whose attention a method is given."""

import copy

import pytest
import torch
import transformers
from transformers import DynamicCache, StaticCache

import seeless as sl
from layer_loop import RECURRENT, LayerLoop, decoder_of
from oracle import merges_of, turn_of
from seeless.core.host import CACHE
from seeless.models import describe
from tinies import IMAGE, RAGGED, RAGGED_VIDEO, TINIES, VIDEO, make_inputs, make_pieces, repeats_patches
from tinies.lfm2_vl import Lfm2VL
from tinies.lfm3_vl import Lfm3Short
from tiny_models import BACKENDS

OWN = [
    own for own in TINIES if own.name in ("qwen3_5", "qwen3_5_moe", "lfm2_vl", "lfm3_vl", "minicpmv4_6", "minicpmv4_7")
]
OWN += [Lfm3Short()] if hasattr(transformers, "Lfm3VlConfig") else []
TOKENS = [IMAGE, VIDEO]
every = pytest.mark.parametrize("own", OWN, ids=str)
STEPS = 8  # twice what a convolution remembers
STRATEGIES = {
    "entry": sl.FasterVLM(keep=0.4),
    "second-layer": sl.FastV(keep=0.4),
    "behind-a-recurrent-layer": sl.FastV(keep=0.4, layer=4),
    "before-any-attention": sl.Random(keep=0.4, layer=1),
    "entry-and-layers": sl.Random(keep=[0.8, 0.5, 0.2], layer=[0, 2, 5]),
    "coming-layers": sl.PyramidDrop(),
    "trimmed": sl.PriorTR(keep=0.4, layer=4),
    "router": sl.Router({2: sl.FastV(keep=0.5), 5: sl.PyramidDrop(keep=0.3, layer=5)}),
}
named = pytest.mark.parametrize("name", STRATEGIES)


def positions_of(model, whole):
    """Positions of a whole conversation, as the untouched model has them."""
    if not hasattr(model.model, "get_rope_index"):
        return (whole["attention_mask"].cumsum(1) - 1).clamp(min=0)
    names = ("input_ids", "mm_token_type_ids", "attention_mask")
    names += ("image_grid_thw", "video_grid_thw", "target_sizes", "target_sizes_videos")
    return model.model.get_rope_index(**{name: whole.get(name) for name in names})[0]


def says(model, own, rows, cuts, strategy):
    """A conversation under a handle: its logits, the reports of its turns with pictures, and the whole of it as one
    input.

    Args:
        rows: per row, what stands in each turn; all turns but the first are equally long in all rows.
        cuts: per turn, its tokens (None: the first turn's), and whether they come one by one.
    """
    flat = [[part for turn in row for part in turn] for row in rows]
    whole = make_inputs(model, own, flat)
    total = whole["input_ids"].shape[1]
    places = positions_of(model, whole)
    ends = [total - sum(n for n, _ in cuts[i + 1 :]) for i in range(len(cuts))]
    cache, logits, reports, start = None, [], [], 0
    with sl.apply(model, strategy) as run:
        for number, ((_, singly), end) in enumerate(zip(cuts, ends, strict=True)):
            pictures = make_inputs(model, own, [row[number] for row in rows])
            given = {
                k: v
                for k, v in pictures.items()
                if "pixel" in k or "grid" in k or k in ("spatial_shapes", "target_sizes")
            }
            before = len(run.reports)
            for first in range(start, end, 1 if singly else end - start):
                last = first + 1 if singly else end
                out = model(
                    input_ids=whole["input_ids"][:, first:last],
                    attention_mask=whole["attention_mask"][:, :last],
                    position_ids=places[..., first:last],
                    use_cache=True,
                    **given,
                    **({} if cache is None else {CACHE: cache}),
                )
                cache = out[CACHE]
                logits.append(out.logits)
            for report in list(run.reports)[before:]:
                reports.append((report, start, end))
            start = end
    return torch.cat(logits, 1), reports, whole


def wanted(untouched, strategy, reports, whole, **merges):
    turns = [turn_of(report, whole["input_ids"][:, :end], TOKENS, start) for report, start, end in reports]
    with LayerLoop(untouched, [strategy], turns, whole["attention_mask"], **merges):
        return untouched(**whole, use_cache=False).logits


def text(whole):
    return ~torch.isin(whole["input_ids"], torch.tensor(TOKENS)) & whole["attention_mask"].bool()


def three_turns(kind):
    """Pictures of several sizes; 8 answered tokens; a question of text; 8 more; one picture for all; four more."""
    start = [row for row in (RAGGED_VIDEO if kind == "video" else RAGGED) if any(isinstance(p, str) for p in row)]
    return [[row, [STEPS], [6], [STEPS], [3, f"{kind}:1", 4], [4]] for row in start]


def cuts_of(own, model, kind):
    picture = len(make_pieces(model, own, [f"{kind}:1"])[0].ids)
    return [(0, False), (STEPS, True), (6, False), (STEPS, True), (7 + picture, False), (4, True)]


@pytest.mark.parametrize(("own", "kind"), [(own, kind) for own in OWN for kind in own.kinds], ids=str)
@named
@torch.no_grad()
def test_three_turns_are_the_loops(tiny, own, kind, name):
    """On one backend each, in turns: prefill, 8 tokens one by one, text, 8 more, another picture, four more."""
    possible = own.backends if own.name.endswith("windowed") else BACKENDS  # flash takes no mask for a window
    strategy, backend = STRATEGIES[name], possible[(list(STRATEGIES).index(name) + OWN.index(own)) % len(possible)]
    model, untouched = tiny(own, backend), tiny(own, "untouched")
    logits, reports, whole = says(model, own, three_turns(kind), cuts_of(own, model, kind), strategy)
    assert len(reports) == 2
    want = wanted(untouched, strategy, reports, whole)
    assert (logits - want)[text(whole)].abs().max() < 1e-4
    plain = untouched(**whole, use_cache=False).logits
    assert (plain - want)[text(whole)].abs().max() > 1e-2


@every
@pytest.mark.parametrize("name", ["clse", "sparsevlm"])
@torch.no_grad()
def test_methods_whose_own_layers_come_too_early_run_with_others(tiny, own, name):
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    inputs = make_inputs(model, own, RAGGED)
    with sl.apply(model, sl.get(name, keep=0.4)), pytest.raises(sl.UnsupportedModel, match="set layer=2 or more"):
        model(**inputs)
    strategy = sl.get(name, keep=[0.8, 0.5, 0.2], layer=[2, 3, 5])
    with sl.apply(model, strategy) as run:
        logits = model(**inputs).logits
    turn = turn_of(run.report, inputs["input_ids"], TOKENS)
    merges = merges_of(strategy, turn, None)
    want = wanted(untouched, strategy, [(run.report, 0, inputs["input_ids"].shape[1])], inputs, **merges)
    assert (logits - want)[text(inputs)].abs().max() < 1e-4


def maps_of(untouched, inputs):
    """Attention maps of an untouched model, by the layers that have attention."""
    kinds = decoder_of(untouched).config.layer_types
    having = [index for index, kind in enumerate(kinds) if kind not in RECURRENT]
    maps = untouched(**inputs, output_attentions=True, use_cache=False).attentions
    return dict(zip(having, maps, strict=True))


@every
@torch.no_grad()
def test_the_nearest_layer_with_attention_is_read_and_the_report_says_so(tiny, own):
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    inputs, layer = make_inputs(model, own, RAGGED), {"qwen3_5_moe": 5}.get(own.name, 4)
    maps = maps_of(untouched, inputs)
    read = max(index for index in maps if index < layer)
    assert read < layer - 1
    with sl.apply(model, sl.FastV(keep=0.4, layer=layer)) as run:
        model(**inputs)
    (stage,) = run.report.stages
    assert stage.attention == {layer - 1: read}
    assert stage.to_dict()["attention"] == {str(layer - 1): read}
    says = f"fastv before layer {layer} reads the attention of layer {read}: layer {layer - 1} has none"
    assert says in str(run.report)
    visual = torch.isin(inputs["input_ids"], torch.tensor(TOKENS))
    for row, scores in enumerate(stage.scores):
        assert len(scores) == 0 or (scores - maps[read][row, :, -1, visual[row]].mean(0)).abs().max() < 1e-5
    with sl.apply(model, sl.FastV(keep=0.4, layer=2)) as run:
        model(**inputs)
    assert run.report.stages[0].attention == {1: 1} and "has none" not in str(run.report)
    with sl.apply(model, sl.Random(keep=0.4, layer=4)) as run:
        model(**inputs)
    assert run.report.stages[0].attention == {}


@every
@torch.no_grad()
def test_what_has_left_since_takes_no_part_in_the_attention_that_is_read(tiny, own):
    """The map of the layer before the first cut, over the tokens that are left: brute force."""
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    inputs = make_inputs(model, own, RAGGED)
    layer = {"qwen3_5_moe": 5}.get(own.name, 4)
    read = max(index for index in maps_of(untouched, inputs) if index < layer)
    with sl.apply(model, [sl.Uniform(keep=0.6, layer=layer - 1), sl.FastV(keep=0.3, layer=layer)]) as run:
        model(**inputs)
    first, second = run.report.stages
    assert second.attention == {layer - 1: read}
    visual = torch.isin(inputs["input_ids"], torch.tensor(TOKENS))
    for row, scores in enumerate(second.scores):
        columns = visual[row].nonzero()[:, 0]
        left = inputs["attention_mask"][row].bool()
        left[columns] = False
        left[columns[first.kept[row]]] = True
        seen = maps_of(untouched, inputs)[read][row, :, -1] * left
        want = (seen / seen.sum(-1, keepdim=True)).mean(0)[columns[first.kept[row]]]
        assert len(scores) == 0 or (scores - want).abs().max() < 1e-5


@every
@torch.no_grad()
def test_a_second_prompt_is_read_in_the_same_layer(tiny, own):
    """The running prompt run again: what both look at is the same, so the correction leaves nothing."""
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [RAGGED[0]])
    (ids,) = inputs["input_ids"].tolist()
    visual = [place for place, token in enumerate(ids) if token in TOKENS]
    before, after = ids[: visual[0]], ids[visual[-1] + 1 :]
    strategy = sl.PriorTR2F(
        keep=0.4, layer=4, prior_mode="template", before=before, after=after, query_aggregation="last"
    )
    if own.name == "minicpmv4_7":
        with sl.apply(model, strategy), pytest.raises(sl.UnsupportedModel, match="depend on the picture"):
            model(**inputs)
        return
    with sl.apply(model, strategy) as run:
        model(**inputs)
    assert run.report.stages[0].scores[0].abs().max() < 1e-6
    early = sl.PriorTR2F(keep=0.4, layer=1, prior_mode="template", after=after)
    with sl.apply(model, early), pytest.raises(sl.UnsupportedModel, match="decoder is 1"):
        model(**inputs)


def test_info_knows_which_methods_come_too_early():
    own = next(own for own in OWN if own.name == "qwen3_5")

    class AsReleased(type(own)):
        def config(self):
            config = super().config()
            config.text_config.num_hidden_layers = 32
            config.text_config.layer_types = (["linear_attention"] * 3 + ["full_attention"]) * 8
            return config

    reasons = describe(AsReleased().build()).strategies
    for name in ("fastv", "priortr", "dart", "clse", "sparsevlm"):
        assert "decoder is 3 (before it: linear_attention)" in reasons[name]
        assert "set layer=4 or more" in reasons[name]
    assert all(reasons[name] is None for name in ("pyramiddrop", "fastervlm", "visionzip", "tome", "divprune"))


# Padding: only in front of a row does it leave the state alone.


@pytest.mark.parametrize(
    ("rows", "keep"),
    [
        ([[4, "image:0", 3], [4, "image:0", 3]], 0.5),
        ([[4, "image:0", 3], [4, "image:1", 3]], 0.5),  # pictures of two sizes keep unequally many tokens
        ([[4, "image:0", 3], [4, "image:2", 3]], 4),  # but the layers before the cut see all of them
        ([[4, "image:0", 3], [1, "image:0", 3]], 0.5),
    ],
    ids=["equal", "unequal-share", "unequal-count", "unequal-text"],
)
@every
@torch.no_grad()
def test_padding_behind_a_cache_is_refused(tiny, own, rows, keep, request):
    model, inputs = tiny(own, "sdpa"), make_inputs(tiny(own, "sdpa"), own, rows)
    prefix = {"input_ids": torch.full((2, 5), 7), "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    inputs["position_ids"] = positions_of(model, inputs) + 5
    inputs["attention_mask"] = torch.cat([prefix["attention_mask"], inputs["attention_mask"]], 1)
    for strategy in (sl.Random(keep=keep, layer=1), sl.Random(keep=keep, scope="row")):
        with sl.apply(model, strategy) as run:
            cache = model(**prefix, use_cache=True)[CACHE]
            at_entry = strategy.layers(6) == [0] and isinstance(keep, int)
            if "-equal" in request.node.name or at_entry:  # the cut itself takes the padding away
                model(**inputs, **{CACHE: cache})
                assert len(run.reports) == 1
                continue
            with pytest.raises(sl.InputError, match="one conversation at a time"):
                model(**inputs, **{CACHE: cache})


@torch.no_grad()
def test_padding_before_convolutions_with_a_bias_is_refused():
    """There the untouched model gives a padded row another answer than the row alone."""

    class Biased(Lfm2VL):
        def config(self):
            config = super().config()
            config.text_config.conv_bias = True
            return config

    own = Biased()
    model = own.build("sdpa")
    rows = [[4, "image:0", 3], [4, "image:1", 3]]
    alone, together = make_inputs(model, own, rows[:1]), make_inputs(model, own, rows)
    length = alone["input_ids"].shape[1]
    assert (model(**together).logits[0, -length:] - model(**alone).logits[0]).abs().max() > 1e-3
    for strategy in (sl.Random(keep=0.5), sl.Random(keep=0.5, layer=1)):
        with sl.apply(model, strategy):
            model(**alone)
            with pytest.raises(sl.InputError, match="conv_bias"):
                model(**together)


@every
@torch.no_grad()
def test_padding_between_turns_of_text_is_refused(tiny, own):
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[4, "image:0", 3], [4, "image:0", 3]])
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 3), value=1)
    places = positions_of(model, inputs).amax(-1, keepdim=True) + 1 + torch.arange(3)
    given = {"input_ids": torch.full((2, 3), 7), "position_ids": places}
    with sl.apply(model, sl.Random(keep=0.5, layer=1)):
        model(**given, attention_mask=mask, **{CACHE: model(**inputs)[CACHE]})
        mask[1, -3] = 0
        with pytest.raises(sl.InputError, match="pad on the left"):
            model(**given, attention_mask=mask, **{CACHE: model(**inputs)[CACHE]})


@pytest.mark.parametrize("own", [own for own in OWN if not own.name.endswith("windowed")], ids=str)
@torch.no_grad()
def test_what_was_padded_on_the_right_cannot_go_on(tiny, own):
    """Unless the cut took the padding away before the first recurrent layer. A window counts padding, too, as in the
    untouched model, so there a row of a batch is not what the row alone is."""
    model = tiny(own, "sdpa")
    rows = [[4, "image:0", 3], [4, "image:0", 6]]
    inputs = make_inputs(model, own, rows, "right")
    step = {"input_ids": torch.full((2, 1), 7)}
    step["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
    step["position_ids"] = positions_of(model, inputs).amax(-1, keepdim=True) + 1
    with sl.apply(model, sl.Random(keep=0.5, layer=1)):
        cache = model(**inputs)[CACHE]
        with pytest.raises(sl.InputError, match="padding_side = 'left'"):
            model(**step, **{CACHE: cache})
        more = make_inputs(model, own, [[4, "image:0", 3]] * 2)
        more["attention_mask"] = torch.cat([inputs["attention_mask"], more["attention_mask"]], 1)
        with pytest.raises(sl.InputError, match="padding_side = 'left'"):
            model(**more, **{CACHE: cache})
    with sl.apply(model, sl.Uniform(keep=0.5)):
        together = model(**step, **{CACHE: model(**inputs)[CACHE]}).logits
        for row in (0, 1):
            alone = make_inputs(model, own, [rows[row]])
            cache = model(**alone)[CACHE]
            mask = torch.nn.functional.pad(alone["attention_mask"], (0, 1), value=1)
            places = step["position_ids"][..., row : row + 1, :]
            given = {"input_ids": step["input_ids"][:1], "attention_mask": mask, "position_ids": places, CACHE: cache}
            assert (model(**given).logits[0] - together[row]).abs().max() < 1e-4


# Caches.


def generate(model, inputs, tokens=8, **options):
    return model.generate(
        **inputs, max_new_tokens=tokens, do_sample=False, return_dict_in_generate=True, output_logits=True, **options
    )


@every
@named
@torch.no_grad()
def test_static_caches_give_the_same(tiny, own, name):
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, RAGGED)
    with sl.apply(model, STRATEGIES[name]):
        want = generate(model, inputs)
        cache = StaticCache(config=model.config.get_text_config(), max_cache_len=want.sequences.shape[1])
        for given in ({"cache_implementation": "static"}, {CACHE: cache}):
            out = generate(model, inputs, **given)
            assert (torch.stack(out.logits) - torch.stack(want.logits)).abs().max() < 1e-4


def beams(model, inputs):
    return model.generate(
        **inputs, max_new_tokens=5, num_beams=3, do_sample=False, return_dict_in_generate=True, output_scores=True
    )


def off_by(out, logits):
    """How far the score of the best beam is from what some logits make of its answer."""
    chances = logits.log_softmax(-1)[0, -6:-1].gather(1, out.sequences[0, -5:, None])
    return abs(chances.sum().item() / 5 - out.sequences_scores[0].item())


@every
@torch.no_grad()
def test_beams_score_what_the_loop_says(tiny, own):
    model, untouched, strategy = tiny(own, "sdpa"), tiny(own, "untouched"), STRATEGIES["behind-a-recurrent-layer"]
    inputs = make_inputs(model, own, [RAGGED[0]])
    prompt = inputs["input_ids"].shape[1]
    if repeats_patches(model):
        pytest.skip("beams of the stock model are wrong in this release of transformers")
    with sl.apply(model, strategy) as run:
        out = beams(model, inputs)
        model(**inputs)
    whole = {**own.extend(inputs, 5), "input_ids": out.sequences}
    assert off_by(out, wanted(untouched, strategy, [(run.report, 0, prompt)], whole)) < 1e-4


@every
@torch.no_grad()
def test_copies_of_a_cached_prefix_serve_many_questions(tiny, own):
    """A copy goes its own way, and so do repeated and chosen rows."""
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[4, "image:0", 3]])
    places = positions_of(model, inputs).amax(-1, keepdim=True) + 1 + torch.arange(4)

    def ask(cache, tokens):
        ids = torch.tensor(tokens)
        mask = torch.ones(len(ids), inputs["input_ids"].shape[1] + ids.shape[1], dtype=torch.long)
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": places[..., : ids.shape[1]]}
        return model(**given, **{CACHE: cache}).logits

    with sl.apply(model, STRATEGIES["trimmed"]):
        cache = model(**inputs)[CACHE]
        first, second = (ask(copy.deepcopy(cache), [own]) for own in ([7, 8, 9], [10, 11, 12]))
        both = copy.deepcopy(cache)
        both.batch_repeat_interleave(2)
        together = ask(both, [[7, 8, 9], [10, 11, 12]])
        assert (together - torch.cat([first, second])).abs().max() < 1e-4
        both.batch_select_indices(torch.tensor([1, 1, 0]))
        after = model(input_ids=torch.tensor([[13], [14], [13]]), position_ids=places[..., 3:], **{CACHE: both}).logits
        again = copy.deepcopy(cache)
        ask(again, [[7, 8, 9]])
        want = model(input_ids=torch.tensor([[13]]), position_ids=places[..., 3:], **{CACHE: again}).logits
        assert (after[2] - want[0]).abs().max() < 1e-4


@every
@torch.no_grad()
def test_cropping_works_where_the_state_can_forget_and_is_refused_elsewhere(tiny, own):
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[4, "image:0", 6]])
    with sl.apply(model, sl.Uniform(keep=0.5, layer=3)):
        cache = model(**inputs)[CACHE]
        with pytest.raises(sl.InputError, match="cannot forget tokens"):
            cache.crop(-2)
        assert cache.get_seq_length() == inputs["input_ids"].shape[1]
        recording = DynamicCache(config=model.config.get_text_config())
        recording.activate_past_recording()
        model(**inputs, **{CACHE: recording})
        if not own.name.startswith("lfm"):
            with pytest.raises(sl.InputError, match="cannot forget tokens"):
                recording.crop(-2)
            return
        with pytest.raises(sl.InputError, match="into the images"):
            recording.crop(-8)
        recording.crop(-2)
        after = model(input_ids=torch.tensor([[7]]), **{CACHE: recording}).logits
        short = {key: x[:, :-2] if key in ("input_ids", "attention_mask") else x for key, x in inputs.items()}
        want = model(input_ids=torch.tensor([[7]]), **{CACHE: model(**short)[CACHE]}).logits
        assert (after - want).abs().max() < 1e-5


@torch.no_grad()
def test_assisted_decoding_gives_the_greedy_tokens_or_is_refused(tiny):
    for own in OWN:
        model = tiny(own, "sdpa")
        inputs = make_inputs(model, own, [RAGGED[0]])
        with sl.apply(model, STRATEGIES["second-layer"]):
            plain = model.generate(**inputs, max_new_tokens=12, do_sample=False)
            if own.name.startswith("lfm"):
                again = model.generate(**inputs, max_new_tokens=12, do_sample=False, prompt_lookup_num_tokens=2)
                assert torch.equal(plain, again)
            else:  # by transformers itself
                with pytest.raises(ValueError, match="stateful"):
                    model.generate(**inputs, max_new_tokens=12, do_sample=False, prompt_lookup_num_tokens=2)


@torch.no_grad()
def test_frames_that_stand_alone(tiny):
    """Frames of videos that count as images of their own: entry and layers, ragged, prefill and 8 tokens."""
    for own in [own for own in OWN if own.name.startswith("minicpm")]:
        model, untouched, own = tiny(own, "sdpa"), tiny(own, "untouched"), WithFrames(own)
        inputs = make_inputs(model, own, [[5, "frames:0", 7], [3, "image:1", 4, "frames:1", 5], [9]])
        for strategy in (sl.FasterVLM(keep=4), sl.FastV(keep=0.4, layer=4), sl.VidCom2(keep=0.5)):
            with sl.apply(model, strategy) as run:
                out = generate(model, inputs, STEPS)
            assert run.reports[0].n_after != run.reports[0].n_before
            whole, prompt = {**own.extend(inputs, STEPS), "input_ids": out.sequences}, inputs["input_ids"].shape[1]
            want = wanted(untouched, strategy, [(run.reports[0], 0, prompt)], whole)
            assert (torch.stack(out.logits, 1) - want[:, prompt - 1 : -1]).abs().max() < 1e-4


class WithFrames:
    """A tiny model with frames among what its prompts are made of."""

    def __init__(self, own):
        self.own, self.kinds = own, ("image", "frames")

    def __getattr__(self, name):
        return getattr(self.own, name)


# What it costs.


@every
@torch.no_grad()
def test_costs_are_those_of_the_layers_there_are(tiny, own):
    """Bytes are those of the cache's keys and values; operations those of the matrices that were used."""
    model, decoder = tiny(own, "sdpa"), decoder_of(tiny(own, "sdpa"))
    inputs = make_inputs(model, own, [[4, "image:0", 6]])
    done = []

    def count(module, args, output):
        done.append(2 * module.weight.numel() * output.shape[:-1].numel())

    layers = [m for m in decoder.layers.modules() if isinstance(m, torch.nn.Linear) and m.out_features > 1]
    handles = [] if own.name == "qwen3_5_moe" else [layer.register_forward_hook(count) for layer in layers]
    with sl.apply(model, sl.Random(keep=0.5, layer=3, past="trim")) as run:
        cache = model(**inputs)[CACHE]
    for handle in handles:
        handle.remove()
    having = [layer for layer in cache.layers if hasattr(layer, "keys")]
    assert run.report.kv_bytes_after == sum(4 * (layer.keys.numel() + layer.values.numel()) for layer in having)
    if handles:
        text_config, (n,), (kept,) = decoder.config, run.report.n_before, run.report.n_after
        tokens = inputs["input_ids"].shape[1]
        head_dim = getattr(text_config, "head_dim", None) or text_config.hidden_size // text_config.num_attention_heads
        width = text_config.num_attention_heads * head_dim
        for index, kind in enumerate(text_config.layer_types):
            now = tokens if index < 3 else tokens - n + kept
            done += [4 * now * now * width] if kind not in RECURRENT else []
        assert run.report.flops_after.decoder == pytest.approx(sum(done), rel=0.01)


@every
@torch.no_grad()
def test_the_towers_cost_is_that_of_its_layers(tiny, own):
    """Matrices, attention where a layer has any, and patches, counted in the tower of a single picture."""
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[4, "image:0", 6]])
    tower = getattr(model.model, "vision_tower", None) or model.model.visual
    layers = tower.encoder.layers if hasattr(tower, "encoder") else getattr(tower, "layers", None) or tower.blocks
    config, done, handles = model.config.vision_config, [], []

    def count(module, args, output):
        done.append(2 * module.weight.numel() * output.shape[:-1].numel())

    def attend(module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        done.append(4 * hidden.shape[-2] ** 2 * hidden.shape[-1])

    for index, layer in enumerate(layers):
        matrices = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]
        handles += [module.register_forward_hook(count) for module in matrices]
        if (getattr(config, "layer_types", None) or ["full_attention"] * len(layers))[index] == "full_attention":
            handles.append(layer.register_forward_pre_hook(attend, with_kwargs=True))
    with sl.apply(model, sl.Random(keep=0.5)) as run:
        model(**inputs)
    for handle in handles:
        handle.remove()
    done.append(2 * inputs["pixel_values"].numel() * config.hidden_size)
    assert run.report.flops_before.tower == run.report.flops_after.tower == sum(done)
