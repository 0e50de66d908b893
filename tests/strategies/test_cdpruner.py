"""CDPruner: choices against determinants worked out one by one; relevance against a stock CLIP model; the question."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_clip import save_clip, save_tokenizer
from transformers import AutoTokenizer, CLIPModel

import seeless as sl
from fake_context import fake_context, kept, unit_of
from seeless.core.relevance import ANSWER_BEGINS, segments, without_short_answer
from seeless.ops.dpp import greedy_map
from tinies import TINIES, VIDEO, make_pieces
from tinies import make_inputs as inputs_of
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs

LLAVA = VARIANTS[0]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


def determinant(matrix):
    """By elimination with the largest pivot."""
    rows, result = [list(row) for row in matrix], 1.0
    for i in range(len(rows)):
        pivot = max(range(i, len(rows)), key=lambda r: abs(rows[r][i]))
        if rows[pivot][i] == 0:
            return 0.0
        if pivot != i:
            rows[i], rows[pivot], result = rows[pivot], rows[i], -result
        result *= rows[i][i]
        for r in range(i + 1, len(rows)):
            factor = rows[r][i] / rows[i][i]
            rows[r] = [a - factor * b for a, b in zip(rows[r], rows[i], strict=True)]
    return result


def by_determinants(kernel, count):
    """Always the token that makes the determinant of the chosen part largest; ties to the lower."""
    chosen = []
    for _ in range(count):
        left = [j for j in range(len(kernel)) if j not in chosen]
        value = {j: determinant([[kernel[a][b] for b in [*chosen, j]] for a in [*chosen, j]]) for j in left}
        chosen.append(max(left, key=lambda j: (value[j], -j)))
    return chosen


def normed(vector):
    size = math.sqrt(sum(x * x for x in vector))
    return [x / size for x in vector]


def kernel_of(similarity, tokens):
    """methods.md 11, steps 1, 3 and 4."""
    relevance = [-s for s in similarity]
    low, high = min(relevance), max(relevance)
    scores = [(r - low + 1e-6) / ((high - low) or 1) for r in relevance]
    directions = [normed(token) for token in tokens]
    return scores, [
        [
            p * q * (1.0 if a is b else sum(x * y for x, y in zip(a, b, strict=True)))
            for q, b in zip(scores, directions, strict=True)
        ]
        for p, a in zip(scores, directions, strict=True)
    ]


def tensors(units, visual, seed, dim=12):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(units, visual, generator=generator, dtype=torch.float64) - 0.5
    return {
        "text_similarity": similarity,
        "embeds": torch.randn(units, visual, dim, generator=generator, dtype=torch.float64),
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(2, 12), st.integers(0, 9999), st.data())
def test_any_size(units, visual, seed, data):
    count = data.draw(st.integers(1, visual - 1))  # the least relevant of all comes last, with next to no weight
    seen = tensors(units, visual, seed)
    decision = sl.CDPruner(count, clip="any").reduce(fake_context(count, units, visual, layer=0, **seen))
    for unit in range(units):
        scores, kernel = kernel_of(seen["text_similarity"][unit].tolist(), seen["embeds"][unit].tolist())
        assert decision.scores[unit].tolist() == pytest.approx(scores, abs=1e-12)
        assert kept(decision)[unit] == sorted(by_determinants(kernel, count))
        own = fake_context(count, 1, visual, layer=0, **unit_of(seen, unit))
        assert kept(sl.CDPruner(count, clip="any").reduce(own)) == [kept(decision)[unit]]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 9999), st.data())
def test_the_order_of_choice(units, visual, seed, data):
    count = data.draw(st.integers(1, visual))
    factor = torch.randn(units, visual, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    kernel = factor @ factor.transpose(1, 2)
    want = [by_determinants(own, count) for own in kernel.tolist()]
    assert greedy_map(kernel, count).tolist() == want


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_token_twice_however_equal_they_are(dtype):
    """Fewer directions than tokens: once they are used up nothing grows, and the lower index wins."""
    ones = torch.ones(2, 9, 9, dtype=dtype)
    assert greedy_map(ones, 9).tolist() == [list(range(9))] * 2
    assert greedy_map(torch.zeros(1, 4, 4, dtype=dtype), 3).tolist() == [[0, 1, 2]]
    factor = torch.randn(1, 300, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    everything = greedy_map(factor @ factor.transpose(1, 2), 300)[0].tolist()
    assert sorted(everything) == list(range(300))


def test_all_equally_relevant():
    seen = {**tensors(1, 8, 3), "text_similarity": torch.full((1, 8), 0.25, dtype=torch.float64)}
    decision = sl.CDPruner(5, clip="any").reduce(fake_context(5, 1, 8, layer=0, **seen))
    _, kernel = kernel_of([0.25] * 8, seen["embeds"][0].tolist())
    assert kept(decision) == [sorted(by_determinants([[1e12 * x for x in row] for row in kernel], 5))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype):
    seen = tensors(2, 40, 5)
    narrow = {"text_similarity": seen["text_similarity"].float(), "embeds": seen["embeds"].to(dtype)}
    wide = {**narrow, "embeds": narrow["embeds"].float()}
    one, other = (sl.CDPruner(13).reduce(fake_context(13, 2, 40, layer=0, **x)) for x in (narrow, wide))
    assert kept(one) == kept(other)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"clip": ""}, "clip='' is no text"),
        ({"clip": 3}, "clip=3 is not possible; it takes text or None"),
        ({"question": " "}, "question=' ' is no text"),
        ({"threshold": 0.5}, "takes no threshold"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.CDPruner(keep=0.5, **knobs)


def plain_similarity(clip, states, text):
    """Of the patches `states` `[patches, dim]`, with the stock CLIP model alone, segment after segment."""
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), AutoTokenizer.from_pretrained(clip)
    patches = model.visual_projection(model.vision_model.post_layernorm(states)).double().tolist()
    ids, texts = tokenizer(text)["input_ids"], []
    for start in range(0, len(ids), 77):
        own = ids[start : start + 77]
        gap = [0] * (77 - len(own))
        mask = torch.tensor([[1] * len(own) + gap])
        pooled = model.text_model(input_ids=torch.tensor([own + gap]), attention_mask=mask).pooler_output
        texts.append(model.text_projection(pooled)[0].double().tolist())
    return [
        sum(sum(x * y for x, y in zip(normed(p), normed(t), strict=True)) for t in texts) / len(texts) for p in patches
    ]


@pytest.mark.parametrize(
    "question", ["what colour is the left digit ?", "how many are there ? " * 40], ids=["one", "3"]
)
@torch.no_grad()
def test_on_a_model(tiny, clip, question):
    """Scores and choice from the untouched tower's states and the stock CLIP model."""
    model, untouched = tiny(LLAVA, "sdpa"), tiny(LLAVA, "untouched")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])
    with sl.apply(model, sl.CDPruner(6, clip=clip, question=question)) as run:
        model(**inputs)
    states = untouched.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2][0, 1:]
    tokens = untouched.model.multi_modal_projector(states).double().tolist()
    scores, kernel = kernel_of(plain_similarity(clip, states, question), tokens)
    stage = run.report.stages[0]
    assert stage.scores[0].tolist() == pytest.approx(scores, abs=1e-4)
    assert stage.kept[0].tolist() == sorted(by_determinants(kernel, 6))


@torch.no_grad()
def test_the_question_of_every_row_is_read_from_the_prompt(tiny, clip, tmp_path):
    model = tiny(LLAVA, "sdpa")
    save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["what colour is the left digit ?", "how many are there ?"]
    end = " Answer the question using a single word or phrase . assistant :"
    inputs = make_inputs(model, LLAVA, [["image:0", 25], ["image:1", 25]])
    for row, text in enumerate(texts):
        ids = tokenizer(text + end.lower(), add_special_tokens=False)["input_ids"]
        inputs["input_ids"][row, 16:] = torch.tensor([2] * (25 - len(ids)) + ids)  # </s> is left out of the question
    seen = []
    for questions in ([None], texts):
        for question in questions:
            model.config._name_or_path = str(tmp_path)
            with sl.apply(model, sl.CDPruner(6, clip=clip, question=question)) as run:
                model(**inputs)
            model.config._name_or_path = ""
            seen.append([scores.tolist() for scores in run.report.stages[0].scores])
    # this tokenizer sets its words apart, so the end "... phrase . assistant :" is no marker and stays in
    whole = [tokenizer.decode(inputs["input_ids"][row, 16:], skip_special_tokens=True) for row in range(2)]
    for row, text in enumerate(whole):
        with sl.apply(model, sl.CDPruner(6, clip=clip, question=text)) as run:
            model(**inputs)
        assert run.report.stages[0].scores[row].tolist() == seen[0][row]
    assert seen[0][0] != seen[1][0] != seen[2][0]


@pytest.mark.parametrize(
    "prompt",
    [
        "\nWhat is it?\nAnswer the question using a single word or phrase. ASSISTANT:",
        "\nWhat is it? ASSISTANT: a cat</s>",
        "\nWhat is it?\nAnswer the question using a single word or phrase. [/INST]",
        "\nWhat is it?\nassistant\n",
        "What is it?\nmodel\nA cat",
        " What is it? \nAssistant: ",
        "What is it?",
    ],
)
def test_where_the_question_ends(prompt):
    assert without_short_answer(ANSWER_BEGINS.split(prompt)[0]) == "What is it?"


def test_a_word_that_only_looks_like_the_end():
    prompt = "Is the assistant a model of [INST]?\nReference OCR token: a, b"
    assert without_short_answer(ANSWER_BEGINS.split(prompt)[0]) == prompt


def test_segments_of_a_text():
    tokens, mask = segments([5, 6, 7, 8, 9], 2)
    assert tokens.tolist() == [[5, 6], [7, 8], [9, 0]] and mask.tolist() == [[1, 1], [1, 1], [1, 0]]
    tokens, mask = segments([5, 6], 2)
    assert tokens.tolist() == [[5, 6]] and mask.tolist() == [[1, 1]]


@torch.no_grad()
def test_refusals_of_models_and_inputs(tiny, clip, tmp_path):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])

    def refusal(error, message, model=model, inputs=inputs, **knobs):
        with sl.apply(model, sl.CDPruner(6, **knobs)), pytest.raises(error, match=message):
            model(**inputs)

    refusal(sl.UnsupportedModel, "pass clip=, the folder or hub name")
    refusal(sl.UnsupportedModel, "cannot be loaded as a CLIP model", clip=str(tmp_path / "none"))
    other = tmp_path / "llava"
    model.config.save_pretrained(other)
    refusal(sl.UnsupportedModel, "it is of type 'llava'", clip=str(other))
    wide = save_clip(tmp_path / "wide", width=48)
    refusal(sl.UnsupportedModel, "is 48 wide, but this model's is 32", clip=wide, question="what ?")
    refusal(sl.InputError, "loaded from no checkpoint.*give the text with question=", clip=clip)
    short = "Answer the question using a single word or phrase."
    refusal(sl.InputError, "there is no question to compare", clip=clip, question=short)
    own = next(tiny for tiny in TINIES if tiny.name == "internvl")
    other = tiny(own, "sdpa")
    refusal(sl.UnsupportedModel, "is no CLIP", other, inputs_of(other, own, [[3, "image:0", 4]]), clip=clip)


@torch.no_grad()
def test_a_forward_without_ids_needs_a_question(tiny, clip):
    """Features made beforehand, and embeddings in place of ids."""
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED[:1])
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    given = {"inputs_embeds": embeds, "pixel_values": inputs["pixel_values"]}
    with sl.apply(model, sl.CDPruner(6, clip=clip)), pytest.raises(sl.InputError, match="does not say what is asked"):
        model(**given)
    with sl.apply(model, sl.CDPruner(6, clip=clip, question="what ?")) as run:
        model(**given)
    assert run.report.n_after == [6] and int((inputs["input_ids"] == IMAGE).sum()) == 16


def test_the_tower_decides_whether_it_works(tiny):
    from seeless.models import describe

    reasons = {}
    for name in ("llava-llama-mha", "internvl"):
        own = next(tiny for tiny in TINIES if tiny.name == name)
        reasons[name] = describe(tiny(own, "sdpa")).strategies["cdpruner"]
    assert "pass clip=" in reasons["llava-llama-mha"] and reasons["internvl"] is None


WITHOUT_CLIP = [(t, k) for t in TINIES for k in t.kinds if t.config().vision_config.model_type != "clip_vision_model"]


@pytest.mark.parametrize("case", WITHOUT_CLIP, ids=lambda case: f"{case[0]}-{case[1]}")
@torch.no_grad()
def test_embeddings_of_the_question_where_the_tower_is_no_clip(case, tiny, tmp_path, monkeypatch):
    """Every crop's choice in float64, from the stock model's features and embedding table alone."""
    (own, kind), question = case, "how many digit are there ? Answer the question using a single word or phrase."
    model = tiny(own, "sdpa")
    save_tokenizer(tmp_path)
    monkeypatch.setattr(model.config, "_name_or_path", str(tmp_path))
    rows = [[3, f"{kind}:1", 4, f"{kind}:2", 6], [9], [2, f"{kind}:0", 5]]
    inputs = inputs_of(model, own, rows)
    entering = embeddings_of(model, inputs)
    with sl.apply(model, sl.CDPruner(0.4, question=question)) as run:
        model(**inputs)
    stage = run.report.stages[0]
    words = AutoTokenizer.from_pretrained(tmp_path)("how many digit are there ?", add_special_tokens=False)["input_ids"]
    table = model.get_input_embeddings()(torch.tensor(words)).double()
    for number, (row, ids) in enumerate(zip(rows, inputs["input_ids"], strict=True)):
        columns, want, first = torch.isin(ids, torch.tensor([IMAGE, VIDEO])).nonzero()[:, 0], [], 0
        crops = []
        for piece in make_pieces(model, own, row):
            crops += [[first + place for place in places] for places, _, _ in piece.crops]
            first += piece.tokens
        for places in crops:
            x = entering[number, columns[places]].double()
            cosine = torch.nn.functional.cosine_similarity(x[:, None], table[None], dim=-1).mean(1)
            score = (cosine - cosine.min() + 1e-6) / (cosine.max() - cosine.min())
            b = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=-1)
            kernel = (score[:, None] * b * score).tolist()
            chosen = by_determinants(kernel, max(1, round(0.4 * len(places))))
            want += [places[i] for i in chosen]
        assert stage.kept[number].tolist() == sorted(want), (number, row)


def embeddings_of(model, inputs):
    """`[batch, seq, dim]`, what enters the first decoder layer."""
    seen = []
    decoder = model.model.language_model if hasattr(model.model, "language_model") else model.model.text_model
    hook = decoder.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    try:
        model(**inputs)
    finally:
        hook.remove()
    return seen[0]


@torch.no_grad()
def test_the_question_is_read_from_the_prompt_without_clip(tiny, tmp_path, monkeypatch):
    own = next(each for each in TINIES if each.name == "internvl")
    model = tiny(own, "sdpa")
    save_tokenizer(tmp_path)
    monkeypatch.setattr(model.config, "_name_or_path", str(tmp_path))
    words = AutoTokenizer.from_pretrained(tmp_path)("how many digit are there ?", add_special_tokens=False)["input_ids"]
    inputs = inputs_of(model, own, [[3, "image:1", len(words)]])
    inputs["input_ids"][0, -len(words) :] = torch.tensor(words)
    found = []
    for knobs in ({}, {"question": "how many digit are there ?"}, {"question": "what colour is the left digit ?"}):
        with sl.apply(model, sl.CDPruner(0.3, **knobs)) as run:
            model(**inputs)
        found.append(run.report.stages[0].scores[0])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])
