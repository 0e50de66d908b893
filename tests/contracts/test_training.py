"""PyramidDrop in training, on every family: its ranking, what it leaves alone, and the oracle's loss and gradients."""

import pytest
import torch
from matrix import PLACEHOLDERS, TINIES, WRONG_IN_TRAINING
from plan import in_turns

import seeless as sl
from layer_loop import by_layer
from oracle import oracle_of, turn_of
from tinies import make_inputs

ROWS = [[5, "image:0", 9], [3, "image:1", 4, "image:2", 8], [12], [4, "image:3", 7]]
NOTHING = -100
# Experts have no float64 kernel; Gemma 2's eager softmax turns a float64 mask of a padded row into nan.
IN_FLOAT32 = ("qwen3_vl_moe", "qwen3_5_moe", "paligemma2", "glm4v_moe", "qwen3_omni_moe_thinker", "kimi_k25")
IN_FLOAT32 += ("ernie4_5_vl_moe",)


CHECKPOINTING = ("plain", "reentrant", "not-reentrant")


def set_checkpointing(model, how):
    """Of activations, in one of the ways of `CHECKPOINTING`."""
    if how != "plain":
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": how == "reentrant"})
        if how == "reentrant":
            model.enable_input_require_grads()


def answers_of(inputs):
    """Labels: row 0 ends in an answer, row 1 has two, row 2 has one but no image, row 3 has an image but none."""
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    labels = torch.full_like(ids, NOTHING)
    for row, answers in enumerate([[(4, None)], [(7, 5), (3, None)], [(3, None)], []]):
        last = int(real[row].nonzero()[-1]) + 1
        for start, stop in answers:
            own = slice(last - start, last if stop is None else last - stop)
            labels[row, own] = ids[row, own]
    visual = torch.isin(ids, torch.tensor(PLACEHOLDERS))
    assert not bool((visual & (labels != NOTHING)).any())
    return labels, visual


def boundaries(labels):
    """Per row, the columns right before an answer."""
    return [
        [p - 1 for p in range(1, len(row)) if row[p] != NOTHING and row[p - 1] == NOTHING] for row in labels.tolist()
    ]


@in_turns(own=TINIES, padding=["left", "right"])
@torch.no_grad()
def test_it_ranks_by_the_tokens_before_answers(own, padding):
    model, plain = own.build("sdpa").train(), own.build("eager")
    inputs = make_inputs(model, own, ROWS, padding)
    labels, visual = answers_of(inputs)
    layer = 2
    with sl.apply(model, sl.PyramidDrop(keep=0.4, layer=layer)) as run:
        model(**inputs, labels=labels)
    stage = run.report.stages[0]
    maps = plain(**inputs, output_attentions=True, use_cache=False).attentions
    attention = by_layer(plain, maps)[layer]
    for row, before in enumerate(boundaries(labels)):
        columns = visual[row].nonzero()[:, 0]
        if not before or len(columns) == 0:
            assert stage.kept[row].tolist() == list(range(len(columns)))
            continue
        assert len(stage.kept[row]) == int(0.4 * len(columns))
        want = attention[row][:, before][:, :, columns].mean((0, 1))
        assert (stage.scores[row] - want).abs().max() < 1e-5
    model.eval()
    with sl.apply(model, sl.PyramidDrop(keep=0.4, layer=layer)) as run:
        model(**inputs, labels=labels)
        evaluated = run.report.stages[0]
        model(**inputs)
    for own_scores, again in zip(stage.scores, evaluated.scores, strict=True):
        assert torch.allclose(own_scores, again, equal_nan=True, atol=1e-6)  # labels say the same in evaluation
    last = [int(row.nonzero()[-1]) for row in inputs["attention_mask"]]
    for row in (0, 1, 3):
        want = attention[row][:, last[row]][:, visual[row]].mean(0)
        assert (run.report.stages[0].scores[row] - want).abs().max() < 1e-5, "without labels the last token asks"


@in_turns(own=TINIES, checkpointing=CHECKPOINTING)
def test_loss_and_gradients_are_the_oracles(own, checkpointing):
    if (own.name, checkpointing) in WRONG_IN_TRAINING:
        pytest.skip("gradients of the stock model of this release are wrong")
    dtype, coarse = (torch.float32, 1e-3) if own.name in IN_FLOAT32 else (torch.float64, 1e-4)
    model, untouched = own.build("sdpa", dtype).train(), own.build("eager", dtype)
    inputs = make_inputs(model, own, ROWS)
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    labels, _ = answers_of(inputs)
    set_checkpointing(model, checkpointing)

    def exact_loss(logits):  # transformers' own loss rounds to float32
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    strategy = sl.PyramidDrop(layer=[1, 2, 3] if own.name == "gemma4-small" else None)  # the last that it can cut at
    with sl.apply(model, strategy) as run:
        out = model(**inputs, labels=labels)
        loss = exact_loss(out.logits)
        loss.backward()
    turn = turn_of(run.report, inputs["input_ids"], PLACEHOLDERS)
    with oracle_of(untouched, [strategy], [turn], inputs["attention_mask"]):
        want = exact_loss(untouched(**inputs, use_cache=False).logits)
        want.backward()
    assert abs(loss.item() - want.item()) < coarse / 100  # norms and softmax are float32 inside, whatever the model is
    assert abs(out.loss.item() - want.item()) < 1e-5
    theirs = dict(untouched.named_parameters())
    for name, mine in model.named_parameters():
        expected = theirs[name].grad
        if mine.grad is None or expected is None:
            assert mine.grad is expected is None, name
        else:
            assert (mine.grad - expected).abs().max() <= 1e-6 + coarse * expected.abs().max(), name
