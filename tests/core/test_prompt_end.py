"""Where the prompt ends: methods that ask its last tokens keep the same, whether an answer is in the forward or not."""

import pytest
import torch

import seeless as sl
from tinies import TINIES, make_inputs

ASKING = {
    "fastv": sl.FastV(keep=0.4),
    "fastv-question": sl.FastV(keep=0.4, query_aggregation="question"),
    "priortr": sl.PriorTR(keep=0.4),
    "pyramiddrop": sl.PyramidDrop(),
    "sparsevlm": sl.SparseVLM(keep=[0.6, 0.4, 0.2]),
    "clse": sl.CLSE(keep=0.4),
    "dart": sl.Dart(keep=0.5, positions="keep"),
    "entry-then-fastv": [sl.Uniform(keep=0.8, positions="keep"), sl.FastV(keep=0.3)],
}
ROWS = [[5, "image:0", 9], [3, "image:1", 6], [4, "image:2", 7]]
ANSWER = torch.tensor([[11, 12, 13]])


def kept(run):
    return [[row.tolist() for row in stage.kept] for stage in run.report.stages]


@pytest.mark.parametrize("family", ["llava-llama-mha", "llava_next-llama-mha", "qwen2_5_vl"])
@pytest.mark.parametrize("name", ASKING)
@torch.no_grad()
def test_an_answer_in_the_forward_is_not_asked(family, name):
    own = next(own for own in TINIES if own.name == family)
    model, strategy = own.build("sdpa"), ASKING[name]
    prompt = make_inputs(model, own, ROWS)
    batch, end = prompt["input_ids"].shape
    whole = own.extend(prompt, ANSWER.shape[1])
    whole["input_ids"] = torch.cat([prompt["input_ids"], ANSWER.expand(batch, -1)], 1)
    labels = torch.full_like(whole["input_ids"], -100)
    labels[:, end:] = ANSWER
    with sl.apply(model, strategy) as run:
        model(**prompt)
        want = kept(run)
        found = {}
        for mode in ("eval", "train"):
            getattr(model, mode)()
            model(**whole, labels=labels)
            found[mode] = kept(run)
        model.eval()
        with run.prompt(end):
            model(**whole)
            found["told"] = kept(run)
        with run.prompt([end] * batch):
            model(**whole)
            found["told row by row"] = kept(run)
        model(**whole)
        untold = kept(run)
    with sl.apply(model, strategy, prompt_length=end) as run:
        model(**whole)
        found["told once"] = kept(run)
    assert all(own == want for own in found.values()), [mode for mode, own in found.items() if own != want]
    if name in ("fastv", "priortr", "pyramiddrop"):  # without a word the answer is taken for the question
        assert untold != want


@torch.no_grad()
def test_a_prompt_that_does_not_fit_is_refused():
    own = TINIES[0]
    model = own.build("sdpa")
    inputs = make_inputs(model, own, ROWS[:1])
    for length in (3, 10_000, [5, 5]):
        with (
            sl.apply(model, "fastv", keep=0.5, prompt_length=length),
            pytest.raises(sl.InputError, match="does not fit 1 rows"),
        ):
            model(**inputs)


@torch.no_grad()
def test_labels_that_begin_with_the_question_mark_no_answer():
    """Everything but the image is learnt, as in plain language modelling: the whole row is the prompt."""
    own = TINIES[0]
    model = own.build("sdpa")
    inputs = make_inputs(model, own, ROWS[:1])
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == 99, -100)
    with sl.apply(model, "fastv", keep=0.4) as run:
        model(**inputs)
        want = kept(run)
        model(**inputs, labels=labels)
        assert kept(run) == want
