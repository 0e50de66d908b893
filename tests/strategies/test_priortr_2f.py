"""PriorTR-2F against a slow reference (methods.md 2.1, 2.2 and 2.8), and the template it reads off a processor."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
import seeless.tiny
from fake_context import fake_context, kept
from seeless import models
from seeless.ops.prior import prior_corrected

TEMPLATE = {"prior_mode": "template", "before": [1, 2], "between": [3], "after": [4]}


def over_heads(rows, how):
    """`[heads][visual]` to `[visual]`."""
    columns = list(zip(*rows, strict=True))
    return [sum(c) / len(c) for c in columns] if how == "mean" else [max(c) for c in columns]


def by_hand(posterior, prior, how):
    """One unit: P and Q as `[heads][visual]`."""
    p, q = over_heads(posterior, how), over_heads(prior, how)
    p, q = ([x / (sum(v) + 1e-10) for x in v] for v in (p, q))
    return [a * math.log((a + 1e-10) / (b + 1e-10)) for a, b in zip(p, q, strict=True)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 12), st.sampled_from(["mean", "max"]), st.integers(0, 9999))
def test_the_formula(units, heads, visual, how, seed):
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.rand(2, units, heads, visual, generator=generator, dtype=torch.float64)
    q = q * (torch.rand(q.shape, generator=generator) > 0.2)  # zeros, too
    got = prior_corrected(p, q, how)
    for unit in range(units):
        assert got[unit].tolist() == pytest.approx(by_hand(p[unit].tolist(), q[unit].tolist(), how), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 10),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from(["question", "last"]),
    st.integers(0, 9999),
    st.data(),
)
def test_scores_and_kept_sets_with_a_prepared_prior(units, visual, text, last_row, aggregation, seed, data):
    """Q of this stage of two, at the places that are left; attention by what is asked for."""
    generator = torch.Generator().manual_seed(seed)
    heads, n_keep = 2, data.draw(st.integers(1, visual))
    original = visual + data.draw(st.integers(0, 4))
    maps = torch.randint(0, 4, (units, heads, text, visual), generator=generator).double()  # ties
    prepared = torch.rand(units, 2, heads, original, generator=generator, dtype=torch.float64)
    index = torch.stack([torch.randperm(original, generator=generator)[:visual].sort().values for _ in range(units)])
    strategy = sl.PriorTR2F(keep=[0.9, 0.5], layer=[2, 4], query_aggregation=aggregation, last_row=last_row, **TEMPLATE)
    ctx = fake_context(n_keep, units, visual, layer=4, stage_index=1, prepared=prepared)
    ctx = type(ctx)(**{**vars(ctx), "index": index, "n_original": original, "sources": Rows(maps)})
    decision = strategy.reduce(ctx)
    for unit in range(units):
        rows = maps[unit].tolist()
        rows_of_question = range(text if last_row or text == 1 else text - 1)
        asked = [text - 1] if aggregation == "last" else list(rows_of_question)
        p = [[sum(head[r][j] for r in asked) / len(asked) for j in range(visual)] for head in rows]
        q = [[head[j] for j in index[unit].tolist()] for head in prepared[unit, 1].tolist()]
        want = by_hand(p, q, "mean")
        assert decision.scores[unit].tolist() == pytest.approx(want, abs=1e-6)
        scores = decision.scores[unit].tolist()
        best = sorted(sorted(range(visual), key=lambda j: (-scores[j], j))[:n_keep])
        assert kept(decision)[unit] == best


class Rows:
    """Answers with the rows of the text that were asked for."""

    def __init__(self, maps):
        self.maps = maps

    def visual(self):
        return torch.zeros(len(self.maps), self.maps.shape[-1], 3)

    def text(self):
        return torch.zeros(len(self.maps), self.maps.shape[2], 3)

    def attention(self, queries, layer, average, onto="visual", causal=True):
        assert layer == 3 and average
        if isinstance(queries, torch.Tensor):
            rows = self.maps[:, :, queries]
        else:
            rows = self.maps if queries == "text" else self.maps[:, :, -1:]
        return rows.mean(2, keepdim=True)


class Layers(Rows):
    """Notes which layer's anchor is read."""

    asked: list

    def attention(self, queries, layer, average, onto="visual", causal=True):
        self.asked.append((queries if isinstance(queries, str) else "rows", layer))
        return self.maps.mean(2, keepdim=True)


@pytest.mark.parametrize(("prior_layer", "layer"), [("same", 4), ("next", 5)])
def test_which_layer_the_null_token_is_read_in(prior_layer, layer):
    sources = Layers(torch.rand(1, 2, 3, 6))
    sources.asked = []
    ctx = fake_context(3, 1, 6, layer=5)
    ctx = type(ctx)(**{**vars(ctx), "sources": sources})
    strategy = sl.PriorTR2F(keep=3, layer=5, prior_layer=prior_layer)
    assert strategy.prepare(ctx) is None
    strategy.reduce(ctx)
    assert sorted(sources.asked) == [("anchor", layer), ("rows", 4)]


@pytest.mark.parametrize(("prior_layer", "layers"), [("same", [1, 3]), ("next", [2, 4])])
def test_which_layers_the_template_is_read_in(prior_layer, layers):
    asked = []

    class Second:
        def second(self, *given):
            asked.append(given)
            return torch.zeros(1, 2, 1, 6)

    ctx = fake_context(3, 1, 6, layer=0)
    ctx = type(ctx)(**{**vars(ctx), "sources": Second()})
    sl.PriorTR2F(keep=[4, 3], layer=[2, 4], prior_layer=prior_layer, **TEMPLATE).prepare(ctx)
    assert asked == [([1, 2], [3], [4], layers)]


def test_as_released_ranks_by_the_question_alone():
    maps = torch.rand(2, 3, 4, 9)
    ctx = fake_context(4, 2, 9, axes=3, attention=maps, text=torch.zeros(2, 4, 3), visual=torch.zeros(2, 9, 3))
    decision = sl.PriorTR2F(keep=4, as_released=True).reduce(ctx)
    p = maps[:, :, :-1].mean(2).mean(1)  # not the last row
    assert kept(decision) == [sorted(row.topk(4).indices.tolist()) for row in p]
    flat = fake_context(4, 2, 9, attention=maps, text=torch.zeros(2, 4, 3), visual=torch.zeros(2, 9, 3))
    with pytest.raises(sl.UnsupportedModel, match="one axis"):
        sl.PriorTR2F(keep=4, as_released=True).reduce(flat)


@pytest.mark.parametrize(
    ("knobs", "text"),
    [
        ({"prior_mode": "cut"}, "choose one of truncate, template"),
        ({"prior_layer": "last"}, "choose one of same, next"),
        ({"query_aggregation": "all"}, "choose one of question, last"),
        ({"head_aggregation": "sum"}, "choose one of mean, max"),
        ({"prior_mode": "template", "before": [1]}, "needs after="),
        ({"after": [1]}, "texts of prior_mode='template'"),
        ({"as_released": True, **TEMPLATE}, "needs no template"),
    ],
)
def test_fields_that_are_not_possible(knobs, text):
    with pytest.raises(sl.BudgetError, match=text):
        sl.PriorTR2F(keep=4, **knobs)


def test_round_trip_and_tuples():
    strategy = sl.PriorTR2F(keep=4, prior_mode="template", before=(1, 2), after=(3,))
    assert strategy.before == [1, 2] and sl.from_dict(json.loads(json.dumps(strategy.to_dict()))) == strategy


def test_template_of_the_embedded_model():
    model, processor = seeless.tiny.load_tiny()
    strategy = sl.PriorTR2F.from_processor(processor, keep=0.25, layer=4)
    assert strategy.prior_mode == "template" and (strategy.keep, strategy.layer) == (0.25, 4)
    words = processor.tokenizer.decode
    assert words(strategy.before).startswith("<s>") and words(strategy.before).count("<s>") == 1
    assert words(strategy.before).endswith("user :")
    assert len(strategy.after) >= 1 and processor.image_token_id not in [*strategy.before, *strategy.after]
    assert sl.PriorTR2F.from_processor(processor, system="count", keep=0.25).before != strategy.before
    models.check_strategy(model, strategy)
    scene = seeless.tiny.draw_scene(seed=3)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": scene.questions[0].text}]}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    with torch.no_grad(), sl.apply(model, strategy) as run:
        model(**processor(images=scene.image, text=prompt, return_tensors="pt"))
    assert run.report.n_after == [36]


IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
TURN = "<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}" + IMAGE
CHATML = "{% for m in messages %}" + TURN + "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
WORDS = [*SPECIAL, "<unk>", "system", "user", "You", "are", "a", "helpful", "assistant", ".", "\n"]


class QwenLike:
    """A processor with a real tokenizer of a few words; every picture is four tokens."""

    image_token_id = WORDS.index("<|image_pad|>")

    def __init__(self, chat_template=CHATML):
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        split = [
            pre_tokenizers.Split(mark, how) for mark, how in ((" ", "removed"), ("\n", "isolated"), (".", "isolated"))
        ]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
        options = {"unk_token": "<unk>", "additional_special_tokens": SPECIAL, "chat_template": chat_template}
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)

    def apply_chat_template(self, chat, tokenize):
        return self.tokenizer.apply_chat_template(chat, tokenize=tokenize)

    def __call__(self, text, images):
        assert [len(own) for own in images] == [sample.count("<|image_pad|>") for sample in text]
        return self.tokenizer([sample.replace("<|image_pad|>", "<|image_pad|>" * 4) for sample in text])


def test_template_of_a_qwen_processor():
    """A system turn, a user turn with the images, and the end of that turn as the last token."""
    strategy = sl.PriorTR2F.from_processor(QwenLike(), keep=64)
    said = [[WORDS[i] for i in ids] for ids in (strategy.before, strategy.between, strategy.after)]
    system = ["<|im_start|>", "system", "\n", "You", "are", "a", "helpful", "assistant", ".", "<|im_end|>", "\n"]
    assert said[0] == [*system, "<|im_start|>", "user", "\n", "<|vision_start|>"]
    assert said[1] == ["<|vision_end|>", "<|vision_start|>"]
    assert said[2] == ["<|vision_end|>", "<|im_end|>"]


def test_a_template_that_ends_with_its_images_is_refused():
    ends = "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<|image_pad|>"
    with pytest.raises(sl.InputError, match="puts no text after an image"):
        sl.PriorTR2F.from_processor(QwenLike(ends + "{% endif %}{% endfor %}{% endfor %}"), keep=64)
