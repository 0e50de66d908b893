"""MMTok: choices against gains added up one by one; the words of the question; a model."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_clip import save_tokenizer
from transformers import AutoTokenizer

import seeless as sl
from fake_context import X8, cosine, fake_context, kept, random_tensors
from seeless.tower import Tower
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs

TOWER = Tower(24, 22, tuple(range(24)), tuple(range(24)), True)
WORDS = torch.tensor([[[0, 1, 0], [0, 0, 1]]], dtype=torch.float64)


def softmax(row, temperature):
    top = max(row)
    powers = [math.exp((x - top) / temperature) for x in row]
    return [p / sum(powers) for p in powers]


def chosen_one_by_one(words, tokens, states, count, knobs=None):
    """The specification with lists; ties to the lower place."""
    knobs = {"alpha": 0.5, "text_temperature": 0.02, "vision_temperature": 0.2, **(knobs or {})}
    rows = [softmax([cosine(z, x) for x in tokens], knobs["text_temperature"]) for z in words]
    rows = [[p / len(words) for p in row] for row in rows]
    for y in states:
        row = softmax([cosine(y, other) for other in states], knobs["vision_temperature"])
        rows.append([knobs["alpha"] * p / len(states) for p in row])
    best, chosen, gains = [0.0] * len(rows), [], []
    for _ in range(count):
        found = None
        for j in (j for j in range(len(tokens)) if j not in chosen):
            gain = sum(max(0.0, row[j] - b) for row, b in zip(rows, best, strict=True))
            if found is None or gain > found[0] + 1e-12:
                found = gain, j
        gains.append(found[0])
        chosen.append(found[1])
        best = [max(b, row[found[1]]) for b, row in zip(best, rows, strict=True)]
    return chosen, gains


def context(count, units, visual, words, tokens, states):
    return fake_context(
        count,
        units,
        visual,
        layer=0,
        tower=TOWER,
        question="any",
        token_embeds=words,
        embeds=tokens,
        vision_hidden={22: states},
    )


def test_worked_out():
    assert kept(sl.MMTok(keep=4).reduce(context(4, 1, 8, WORDS, X8, X8))) == [[1, 2, 4, 6]]
    order, gains = chosen_one_by_one(WORDS[0].tolist(), X8[0].tolist(), X8[0].tolist(), 4)
    assert order == [2, 4, 1, 6]
    assert gains == pytest.approx([0.560412, 0.549412, 0.053709, 0.017910], abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 4), st.integers(0, 9999), st.data())
def test_any_size(units, visual, words, seed, data):
    count = data.draw(st.sampled_from([1, visual, data.draw(st.integers(1, visual))]))
    knobs = data.draw(st.sampled_from([{}, {"alpha": 2.0, "text_temperature": 0.3}, {"alpha": 0.0}]))
    seen = random_tensors(units, visual, seed)
    z = torch.randn(units, words, 5, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    given = z, seen["embeds"], seen["vision_features"]
    decision = sl.MMTok(keep=count, **knobs).reduce(context(count, units, visual, *given))
    for unit in range(units):
        own = [x[unit].tolist() for x in given]
        assert kept(decision)[unit] == sorted(chosen_one_by_one(*own, count, knobs)[0])


def test_words_of_a_question():
    assert sl.MMTok(keep=9).pieces("What is the colour of the left Digit?") == ["colour", "left", "Digit"]
    assert sl.MMTok(keep=9).pieces("What is it?") == ["What is it?"]
    assert sl.MMTok(keep=9, words="all").pieces("What is the colour?") == ["What is the colour?"]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"alpha": -1.0}, r"alpha=-1\.0 is not possible"),
        ({"text_temperature": 0.0}, r"text_temperature=0\.0 is not possible"),
        ({"vision_temperature": math.inf}, "vision_temperature=inf is not possible"),
        ({"words": "some"}, "words='some'"),
        ({"question": " "}, "question=' ' is no text"),
        ({"threshold": 0.5}, "takes no threshold"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.MMTok(keep=0.5, **knobs)


@torch.no_grad()
def test_on_a_model(tiny, tmp_path, monkeypatch):
    variant = VARIANTS[0]
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    save_tokenizer(tmp_path)
    monkeypatch.setattr(model.config, "_name_or_path", str(tmp_path))
    inputs = make_inputs(model, variant, RAGGED[:1])
    with sl.apply(model, sl.MMTok(keep=5, question="what is the left digit ?")) as run:
        model(**inputs)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = [i for word in ("left", "digit") for i in tokenizer(word, add_special_tokens=False)["input_ids"]]
    words = untouched.get_input_embeddings()(torch.tensor(ids)).double().tolist()
    tower = untouched.model.vision_tower(inputs["pixel_values"], output_hidden_states=True)
    states = tower.hidden_states[-2][0, 1:].double().tolist()
    embeds = untouched(**inputs, output_hidden_states=True).hidden_states[0][0]
    tokens = embeds[inputs["input_ids"][0] == IMAGE].double().tolist()
    want, _ = chosen_one_by_one(words, tokens, states, 5)
    assert run.report.stages[0].kept[0].tolist() == sorted(want)
