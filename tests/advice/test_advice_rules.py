"""What the rules of advice say of methods, compared with what methods do; and which methods they let through."""

import dataclasses
import re
from fractions import Fraction

import pytest
import torch
from matrix import CLIP, STRATEGIES
from transformers import AutoTokenizer

import seeless as sl
from seeless.advice.advising import built_in
from seeless.advice.candidates import candidate
from seeless.advice.suiting import Facts, facts_of, suits
from seeless.advice.uses import BUDGETS, MADE_FOR_VIDEOS, READ_THE_QUESTION, USES, use_named
from seeless.cli.cards import card_of
from seeless.core import question_answers
from seeless.integrations.vllm.served import MODEL_TYPES, reason_against
from seeless.registry import strategy_class
from seeless.strategy import Strategy
from tinies import TINIES, make_inputs

QUESTIONS = ("how many digit are there ?", "which digit is red ?", "what is left of the digit ?")
DROPPING = {"mustdrop": sl.MustDrop(flat=2.0, total=0.06, largest=1.0)}  # by what the text looks at, not in the tower
ALONE = [name for name in built_in() if strategy_class(name).parts is Strategy.parts]


@pytest.fixture(scope="module")
def asked():
    """A model, and the same video or picture before three questions."""
    made = {}
    for family, row in (("llava-llama-mha", [5, "image:0", 9]), ("video_llava-llama-mha", [5, "video:0", 9])):
        own = next(own for own in TINIES if own.name.startswith(family.partition("-")[0]) and row[1][:5] in own.kinds)
        model, inputs = own.build("sdpa"), None
        prompts = []
        for number in range(len(QUESTIONS)):
            inputs = make_inputs(model, own, [row])
            generator = torch.Generator().manual_seed(number)
            inputs["input_ids"][0, -9:] = torch.randint(3, 90, (9,), generator=generator)
            prompts.append(inputs)
        made[row[1][:5]] = (model, prompts)
    return made


@pytest.mark.parametrize("name", ALONE)
@torch.no_grad()
def test_another_question_keeps_other_tokens_or_not(asked, name, monkeypatch):
    monkeypatch.setattr(question_answers, "load_tokenizer", lambda *_: AutoTokenizer.from_pretrained(CLIP))
    model, prompts = asked["video" if name in MADE_FOR_VIDEOS else "image"]
    found = []
    for question, inputs in zip(QUESTIONS, prompts, strict=True):
        strategy = DROPPING.get(name, STRATEGIES[name])
        if hasattr(strategy, "question"):
            strategy = dataclasses.replace(strategy, question=question)
        with sl.apply(model, strategy) as run:
            model(**inputs)
        found.append([stage.kept[0].tolist() for stage in run.report.stages])
    assert any(stage.n_after != stage.n_before for stage in run.report.stages)
    assert any(own != found[0] for own in found) == (name in READ_THE_QUESTION)
    before = all(stage.layer == 0 for stage in run.report.stages)
    assert not facts_of(name, []).before_decoder or before or name in READ_THE_QUESTION


def test_methods_about_videos_are_those_that_speak_of_frames():
    about = [name for name in ALONE if re.search(r"\b(frame|video)s?\b", card_of(name).summary)]
    assert sorted(about) == sorted(MADE_FOR_VIDEOS)


def test_facts_name_methods_of_the_package():
    assert {*READ_THE_QUESTION, *MADE_FOR_VIDEOS, *(name for use in USES for name in use.first)} <= set(ALONE)


@pytest.mark.parametrize("use", USES, ids=lambda use: use.name)
def test_what_suits_a_use_is_what_its_needs_let_through(use):
    """Need by need, each asked of the method itself."""
    truth = {
        "any_question": lambda name: name not in READ_THE_QUESTION,
        "before_decoder": lambda name: strategy_class(name).stage.value in ("entry", "tower"),
        "for_videos": lambda name: name in MADE_FOR_VIDEOS,
        "for_pictures": lambda name: name not in MADE_FOR_VIDEOS,
        "fits_all_answers": lambda name: name == "pyramiddrop" or name not in READ_THE_QUESTION,
        "served": lambda name: is_served(name),
    }
    want = {name for name in built_in() if strategy_class(name).paper and all(truth[n.fact](name) for n in use.needs)}
    assert want == {name for name in built_in() if suits(use, facts_of(name, MODEL_TYPES))}
    assert want and not want & {"random", "uniform", "pool", "router"}
    assert {need.fact for need in use.needs} <= {field.name for field in dataclasses.fields(Facts)}
    assert all(text.endswith(".") for text in (use.why, *(need.reason for need in use.needs)))


def is_served(name):
    try:
        strategy = sl.get(name, keep=0.25)
    except sl.BudgetError:
        return False
    return any(reason_against(strategy, mrope) is None for mrope in (True, False))


def test_pyramiddrop_looks_before_every_answer(asked):
    """Of two questions about a picture, each with its answer, others see the first at most."""
    model, prompts = asked["image"]
    model.train()
    inputs = {**prompts[0], "labels": torch.full_like(prompts[0]["input_ids"], -100)}
    inputs["labels"][0, [-7, -6, -2, -1]] = inputs["input_ids"][0, [-7, -6, -2, -1]]
    later = {**inputs, "input_ids": inputs["input_ids"].clone()}
    later["input_ids"][0, -4:-2] += 1  # another second question
    found = {}
    with torch.no_grad():
        for name in ("pyramiddrop", "fastv", "fastervlm"):
            kept = []
            for each in (inputs, later):
                with sl.apply(model, STRATEGIES[name]) as run:
                    model(**each)
                kept.append(run.report.stages[0].scores[0].tolist())
            found[name] = kept[0] == kept[1]
    model.eval()
    assert found == {"pyramiddrop": False, "fastv": True, "fastervlm": True}


def test_budgets_are_those_of_papers():
    assert [int(share * 576) for share in BUDGETS] == [432, 288, 192, 128, 64, 32]
    assert all(use.budget in BUDGETS for use in USES)


def test_a_budget_is_written_as_the_method_takes_it():
    for name in ALONE:
        one = candidate(name, Fraction(2, 9), 576)
        if one.share is None:
            assert one.fields == {} and one.strategy.own_count
            continue
        assert one.fields == {"average" if name == "pyramiddrop" else "keep": 128}
        assert eval(one.call.replace("sl.apply(model, ", "sl.get(")) == one.strategy
    assert use_named("small print").budget == Fraction(1, 2)
