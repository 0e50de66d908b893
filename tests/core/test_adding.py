"""`Extend`: new tokens after the visual ones, against the model's own layers run by hand on explicit sequences."""

from dataclasses import dataclass

import pytest
import torch
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask

import seeless as sl
from seeless.core.host import CACHE
from seeless.decision import Extend
from tinies import IMAGE, RAGGED, TINIES, VIDEO, make_inputs
from tiny_models import BACKENDS

PLACEHOLDERS = torch.tensor([IMAGE, VIDEO])
LLAVA, QWEN3, PIXTRAL, GEMMA = (
    next(own for own in TINIES if own.name.startswith(name))
    for name in ("llava-llama", "qwen3_vl", "llava-pix", "gemma3")
)


class Adding(sl.LayerStrategy):
    """Keeps every other token of a row, one more or less by its number of tokens; adds the means of three dropped."""

    one_by_one = True
    adds: int = 2

    def reduce(self, ctx):
        visual = ctx.visual.shape[1]
        stays = torch.arange(visual) % (2 + ctx.stage_index) == visual // 16 % 2
        gone = (~stays).nonzero()[:, 0]
        count = min(self.adds + visual // 16 + ctx.stage_index, len(gone) // 3)
        new = torch.stack([ctx.visual[0, gone[3 * i : 3 * i + 3]].mean(0) for i in range(count)])
        return Extend(stays[None], new[None], ctx.visual.norm(dim=-1))


def adding(layers, **options):
    options = {"past": "trim", **options}
    return Adding(keep=[1] * len(layers), layer=layers, **options)


@dataclass
class Line:
    """One row's tokens as they stand at some depth: hidden states, the position of each, and which are visual."""

    hidden: torch.Tensor  # [tokens, dim]
    cos: torch.Tensor
    sin: torch.Tensor
    visual: list
    column: list  # None for new tokens


def by_hand(model, inputs, row, strategy, visual_mask):
    """One row through the stock model's own layers, with plain Python lists for who is where.

    Returns the hidden states after the last layer, the columns they belong to, keys and values of every layer as the
    trimmed cache must hold them, and how many tokens were added at each stage.
    """
    decoder = model.model.language_model
    seen = {}

    def note(module, args, kwargs):
        seen.update(kwargs, hidden=args[0])

    hook = decoder.layers[0].register_forward_pre_hook(note, with_kwargs=True)
    inject = getattr(decoder, "_deepstack_process", None)
    features = []
    if inject is not None:
        decoder._deepstack_process = lambda hidden, mask, added: (features.append(added), inject(hidden, mask, added))[
            1
        ]
    try:
        model(**inputs, use_cache=False)
    finally:
        hook.remove()
        if inject is not None:
            del decoder._deepstack_process
    real = inputs["attention_mask"][row].nonzero()[:, 0]
    number = (visual_mask.flatten().cumsum(0) - 1).view(visual_mask.shape)[row]
    cos, sin = (x.expand(len(visual_mask), -1, -1)[row, real] for x in seen["position_embeddings"])
    line = Line(seen["hidden"][row, real], cos, sin, visual_mask[row, real].tolist(), real.tolist())
    caches, added = [], []
    depth = len(decoder.layers)
    for index, layer in enumerate(decoder.layers):
        if index in strategy.layers(depth) and any(line.visual):
            line, caches, count = cut_by_hand(line, caches, strategy, strategy.layers(depth).index(index))
            added.append(count)
        cache = DynamicCache()
        states = line.hidden[None]
        mask = create_causal_mask(decoder.config, states, None, cache, None)
        for _ in range(index):
            cache.update(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), len(cache.layers))
        out = layer(
            states,
            attention_mask=mask,
            position_embeddings=(line.cos[None], line.sin[None]),
            **{CACHE: cache},
        )
        caches.append((cache.layers[index].keys[0], cache.layers[index].values[0]))
        states = (out if isinstance(out, torch.Tensor) else out[0])[0].clone()
        if index < len(features):
            for i, column in enumerate(line.column):
                if line.visual[i] and column is not None:
                    states[i] += features[index][number[column]]
        line.hidden = states
    return decoder.norm(line.hidden), line.column, caches, added


def cut_by_hand(line, caches, strategy, stage):
    places = [i for i, visual in enumerate(line.visual) if visual]
    ctx = type("Ctx", (), {"visual": line.hidden[places][None], "stage_index": stage})
    decision = strategy.reduce(ctx)
    kept = [place for place, stays in zip(places, decision.mask[0].tolist(), strict=True) if stays]
    new, after = decision.new[0], places[-1] + 1
    order = [i for i in range(after) if not line.visual[i] or i in kept]
    rest = list(range(after, len(line.visual)))

    def whole(x, fresh):
        return torch.cat([x[order], fresh, x[rest]])

    count = len(new)
    copied = [kept[-1]] * count
    result = Line(
        whole(line.hidden, new),
        whole(line.cos, line.cos[copied]),
        whole(line.sin, line.sin[copied]),
        [*[line.visual[i] for i in order], *[True] * count, *[False] * len(rest)],
        [*[line.column[i] for i in order], *[None] * count, *[line.column[i] for i in rest]],
    )
    trimmed = []
    for keys, values in caches:
        blank = torch.zeros(keys.shape[0], count, keys.shape[2])
        trimmed.append(tuple(torch.cat([x[:, order], blank, x[:, rest]], 1) for x in (keys, values)))
    return result, trimmed, count


ROWS = [[5, "image:0", 9], [2, "image:3", 3], [14], [3, "image:1", 4, "image:2", 6]]


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("layers", [[2], [1, 4], [1, 2]], ids=str)
@pytest.mark.parametrize("own", [LLAVA, QWEN3, PIXTRAL], ids=str)
@torch.no_grad()
def test_prefill_and_cache_are_those_of_the_models_own_layers(tiny, own, layers, padding):
    """Rows with unequal numbers of new tokens, one with text between its images, one without any."""
    model, untouched, strategy = tiny(own, "sdpa"), tiny(own, "untouched"), adding(layers)
    inputs = make_inputs(model, own, ROWS, padding)
    visual = torch.isin(inputs["input_ids"], PLACEHOLDERS)
    with sl.apply(model, strategy) as run:
        out = model(**inputs)
    counts = []
    for row in range(len(ROWS)):
        hidden, columns, caches, added = by_hand(untouched, inputs, row, strategy, visual)
        logits = untouched.lm_head(hidden)
        for place, column in enumerate(columns):
            if column is not None:
                assert (out.logits[row, column] - logits[place]).abs().max() < 1e-4
        counts.append(added)
        own_length = len(columns)
        for layer, (keys, values) in zip(out[CACHE].layers, caches, strict=True):
            held = slice(-own_length, None)  # what is shorter than the longest is padded on the left
            if padding == "right" and len(run.report.stages) == 0:
                held = slice(0, own_length)
            assert (layer.keys[row, :, held] - keys).abs().max() < 1e-4
            assert (layer.values[row, :, held] - values).abs().max() < 1e-4
        at = [i for i, column in enumerate(columns) if column is None]
        early = caches[0][0]
        assert not at or not early[:, at].any()  # earlier layers hold zeros for them
    assert len({tuple(count) for count in counts}) > 2  # unequal numbers
    for number, stage in enumerate(run.report.stages):
        for row, count in enumerate(counts):
            total = sum(count[: number + 1]) if count else 0
            assert stage.n_after[row] >= len(stage.kept[row])
            if number == 0:
                assert stage.n_after[row] == len(stage.kept[row]) + total
    lengths = [layer.keys.shape[-2] for layer in out[CACHE].layers]
    rest = (inputs["attention_mask"].sum(1) - visual.sum(1)).tolist()
    assert set(lengths) == {max(r + n for r, n in zip(rest, run.report.n_after, strict=True))}


@pytest.mark.parametrize("own", [LLAVA, QWEN3, PIXTRAL], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@torch.no_grad()
def test_decode_continues_on_what_the_cache_holds(tiny, own, backend):
    """Generated logits: one query over the hand-made cache, at the next logical position, layer by layer."""
    model, untouched, strategy, steps = tiny(own, backend), tiny(own, "untouched"), adding([1, 3]), 4
    inputs = make_inputs(model, own, ROWS)
    with sl.apply(model, strategy):
        out = model.generate(
            **inputs, max_new_tokens=steps, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    decoder = untouched.model.language_model
    for row in range(len(ROWS)):
        alone = make_inputs(model, own, [ROWS[row]])
        hidden, _, caches, _ = by_hand(untouched, alone, 0, strategy, torch.isin(alone["input_ids"], PLACEHOLDERS))
        assert (untouched.lm_head(hidden[-1]) - out.logits[0][row]).abs().max() < 1e-4
        rotary = positions_of(untouched, own, alone, out.sequences[row, -steps:])
        for step in range(steps - 1):
            token = out.sequences[row, -steps + step]
            x = decoder.embed_tokens(token)[None, None]
            turn = tuple(angle[:, -steps + step][:, None] for angle in rotary)
            for index, layer in enumerate(decoder.layers):
                cache = DynamicCache()
                for past in range(index + 1):
                    keys, values = caches[past]
                    cache.update(keys[None], values[None], past)
                result = layer(x, attention_mask=None, position_embeddings=turn, **{CACHE: cache})
                x = result if isinstance(result, torch.Tensor) else result[0]
                caches[index] = cache.layers[index].keys[0], cache.layers[index].values[0]
            logits = untouched.lm_head(decoder.norm(x))[0, 0]
            assert (logits - out.logits[step + 1][row]).abs().max() < 1e-4
            assert int(logits.argmax()) == int(out.sequences[row, -steps + step + 1])


def positions_of(untouched, own, inputs, answer):
    """The rotary embedding of a whole conversation in which nothing was dropped."""
    seen = {}
    hook = untouched.model.language_model.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    try:
        ids = torch.cat([inputs["input_ids"], answer[None]], 1)
        untouched(**{**own.extend(inputs, len(answer)), "input_ids": ids}, use_cache=False)
    finally:
        hook.remove()
    return seen["position_embeddings"]


@pytest.mark.parametrize("own", TINIES, ids=str)
@torch.no_grad()
def test_rows_of_a_batch_and_backends(tiny, own):
    """On every family, images with text between them and row breaks included."""
    strategy, first = adding([2, 4]), None
    if own.name in ("gemma4-small", "ernie4_5_vl_moe"):
        model = tiny(own, "sdpa")
        with sl.apply(model, adding([1, 2])), pytest.raises(sl.UnsupportedModel, match="added tokens do not have"):
            model(**make_inputs(model, own, RAGGED))
        return
    for backend in BACKENDS:
        if backend == "fused" and own.name.startswith(("gemma", "paligemma", "molmo2")):
            continue
        model = tiny(own, backend)
        inputs = make_inputs(model, own, RAGGED)
        with sl.apply(model, strategy) as run:
            together = model(**inputs).logits
            kept = [[k.tolist() for k in stage.kept] for stage in run.report.stages]
            for i, row in enumerate(RAGGED):
                real = inputs["attention_mask"][i].bool()
                alone = model(**make_inputs(model, own, [row])).logits[0]
                assert (together[i][real] - alone).abs().max() < 5e-5
        if first is None:
            first = together, kept, inputs["attention_mask"].bool()
        assert kept == first[1] and (together - first[0])[first[2]].abs().max() < 5e-5


class Late(Adding):
    """Looks at what has no meaning any more once tokens were added."""

    asks: str = "embeds"

    def reduce(self, ctx):
        if ctx.stage_index:
            value = getattr(ctx, self.asks)
            value() if callable(value) else value
        return super().reduce(ctx)


@pytest.mark.parametrize("asks", ["embeds", "row_embeds", "patch", "vision_attention", "vision_features"])
@torch.no_grad()
def test_what_original_tokens_had_is_refused_later(tiny, asks):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])
    late = Late(keep=[1, 1], layer=[2, 4], past="trim", asks=asks)
    with sl.apply(model, late), pytest.raises(sl.InputError, match="tokens were added before this stage"):
        model(**inputs)


@torch.no_grad()
def test_refusals(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])

    def refused(message, reduce, error=sl.InputError, **options):
        made = type("Made", (Adding,), {"reduce": lambda self, ctx: reduce(ctx)})
        with pytest.raises(error, match=message), sl.apply(model, made(keep=1, layer=2, **options)):
            model(**inputs)

    def plain(ctx, added=1, kept=4):
        return Extend((torch.arange(16) < kept)[None], torch.zeros(1, added, 64))

    refused("past='trim'", plain, past="keep")
    refused("past='trim'", plain, past="trim", positions="renumber")
    refused("13 tokens were added where 12 of 16 leave; add fewer", lambda ctx: plain(ctx, 13), past="trim")
    refused("1 tokens were added where 0 of 16 leave", lambda ctx: plain(ctx, 1, 16), past="trim")
    refused("keeps no token", lambda ctx: plain(ctx, 1, 0), past="trim")

    class AtEntry(sl.EntryStrategy):
        def reduce(self, ctx):
            return plain(ctx)

    with sl.apply(model, AtEntry(keep=4, past="trim")), pytest.raises(sl.InputError, match="at decoder stages only"):
        model(**inputs)


@torch.no_grad()
def test_as_many_as_leave(tiny):
    """The length does not change, but tokens and caches do."""

    class Swap(Adding):
        def reduce(self, ctx):
            return Extend((torch.arange(16) < 10)[None], 0.5 * ctx.visual[:, 10:])

    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])
    plain = model(**inputs).logits
    with sl.apply(model, Swap(keep=1, layer=2, past="trim")) as run:
        out = model(**inputs)
    assert [layer.keys.shape[-2] for layer in out[CACHE].layers] == [30] * 6
    assert not out[CACHE].layers[1].keys[0, :, 15:21].any() and run.report.n_after == [16]
    assert run.report.stages[0].kept[0].tolist() == list(range(10))
    assert (out.logits - plain)[:, 21:].abs().max() > 1e-2
