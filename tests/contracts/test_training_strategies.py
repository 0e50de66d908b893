"""Every method in training, and what training brings along: autocast, accumulation, LoRA, padding, evaluation."""

import copy

import pytest
import torch
from matrix import LEAVES_STILLS_ALONE, PLACEHOLDERS, STRATEGIES, gap, grids
from test_training import ROWS, answers_of, set_checkpointing
from torch.nn.functional import cross_entropy

import seeless as sl
from oracle import merges_of, oracle_of, turn_of
from tinies import TINIES, make_inputs

CHOSEN = [next(tiny for tiny in TINIES if tiny.name == name) for name in ("llava-llama-mha", "qwen2_5_vl")]
chosen = pytest.mark.parametrize("own", CHOSEN, ids=str)
PYRAMID = STRATEGIES["pyramiddrop"]


def batch(model, own, rows=ROWS, padding="left"):
    """Inputs in the model's precision, and labels."""
    inputs = make_inputs(model, own, rows, padding)
    inputs = {key: value.to(model.dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    return inputs, answers_of(inputs)[0] if rows is ROWS else inputs["input_ids"]


def loss_of(logits, labels, reduction="mean"):
    """As the model's own, which rounds to float32."""
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction=reduction)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found, want, tolerance):
    assert found.keys() == want.keys()
    for name, gradient in found.items():
        assert (gradient - want[name]).abs().max() <= tolerance * (1e-3 + want[name].abs().max()), name


@pytest.mark.parametrize("name", STRATEGIES)
@chosen
def test_loss_and_gradients_of_every_method_are_the_oracles(own, name):
    model, untouched = own.build("sdpa", torch.float64).train(), own.build("eager", torch.float64).train()
    inputs, labels = batch(model, own)
    if (reason := gap(own, name, "sdpa")) is not None:
        with pytest.raises(sl.UnsupportedModel, match=reason), sl.apply(model, STRATEGIES[name]):
            model(**inputs, labels=labels)
        return
    with sl.apply(model, STRATEGIES[name]) as run:
        loss = loss_of(model(**inputs, labels=labels).logits, labels)
        loss.backward()
    reduced = [stage.n_after != stage.n_before for stage in run.report.stages]
    assert any(reduced) or name in LEAVES_STILLS_ALONE
    turn = turn_of(run.report, inputs["input_ids"], PLACEHOLDERS)
    merges = merges_of(STRATEGIES[name], turn, grids(model, own, ROWS, inputs["input_ids"]), model, untouched, inputs)
    with oracle_of(untouched, [STRATEGIES[name]], [turn], inputs["attention_mask"], **merges):
        want = loss_of(untouched(**inputs, use_cache=False).logits, labels)
        want.backward()
    assert abs(loss.item() - want.item()) < 1e-6
    found = gradients(model)
    assert_close(found, gradients(untouched), 1e-4)
    tower = [gradient for name, gradient in found.items() if "vis" in name and "projector" not in name]
    assert tower and all(bool(gradient.isfinite().all()) for gradient in found.values())
    assert any(gradient.abs().max() > 1e-6 for gradient in tower)


@chosen
def test_a_method_that_makes_no_sense_in_training_says_so(own):
    class Inference(sl.FastV):
        no_training = "its scores leak the answers"

    model = own.build("sdpa").train()
    inputs, labels = batch(model, own)
    with sl.apply(model, Inference(keep=0.5)):
        with pytest.raises(sl.UnsupportedModel, match="cannot be trained under: its scores leak the answers"):
            model(**inputs, labels=labels)
        with torch.no_grad():
            model(**inputs, labels=labels)
        model.eval()
        model(**inputs, labels=labels)


@chosen
def test_autocast(own):
    """Ranking is in float32, and what bfloat16 does not blur is kept as without."""
    model = own.build("sdpa").train()
    inputs, labels = batch(model, own)
    strategy = sl.PyramidDrop(keep=0.4, layer=2)
    with sl.apply(model, strategy) as run:
        model(**inputs, labels=labels)
        exact = run.report.stages[0]
        with torch.autocast("cpu", torch.bfloat16):
            out = model(**inputs, labels=labels)
        out.loss.backward()
    half = run.report.stages[0]
    assert out.logits.dtype == torch.bfloat16 and out.loss.isfinite()
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(model).values())
    clear = 0
    for row in (0, 1):
        scores, kept = exact.scores[row], set(exact.kept[row].tolist())
        assert half.scores[row].dtype == torch.float32 and len(half.kept[row]) == len(kept)
        wrong = (half.scores[row] - scores).abs().max().item()
        assert 0 < wrong < 0.1 * scores.max()
        least = min(scores[i].item() for i in kept)
        for place, score in enumerate(scores.tolist()):
            if abs(score - least) > 2 * wrong:
                clear += 1
                assert (place in kept) == (place in half.kept[row].tolist())
    assert clear >= 8


@chosen
def test_accumulated_gradients_are_those_of_the_batch(own):
    """Row by row, each without padding, and all rows at once."""
    model = own.build("sdpa", torch.float64).train()
    inputs, labels = batch(model, own)
    with sl.apply(model, PYRAMID) as run:
        at_once = loss_of(model(**inputs, labels=labels).logits, labels, "sum")
        at_once.backward()
        want, kept = gradients(model), [stage.kept for stage in run.report.stages]
        model.zero_grad()
        total = 0.0
        for number, row in enumerate(ROWS):
            alone = make_inputs(model, own, [row])
            mask = inputs["attention_mask"][number].bool()
            labelled = labels[number][mask][None]
            assert torch.equal(alone["input_ids"][0], inputs["input_ids"][number][mask])
            loss = loss_of(model(**alone, labels=labelled).logits, labelled, "sum")
            loss.backward()
            total += loss.item()
            if number != 2:  # text alone makes no report
                for stage, all_rows in zip(run.report.stages, kept, strict=True):
                    assert torch.equal(stage.kept[0], all_rows[number])
    assert abs(total - at_once.item()) < 1e-5
    assert_close(gradients(model), want, 1e-4)


@chosen
def test_padding_does_not_matter(own):
    found = []
    for side in ("left", "right"):
        model = own.build("sdpa", torch.float64).train()
        inputs, labels = batch(model, own, padding=side)
        with sl.apply(model, PYRAMID):
            loss = loss_of(model(**inputs, labels=labels).logits, labels)
            loss.backward()
        found.append((loss.item(), gradients(model)))
    (left, want), (right, gradient) = found
    assert abs(left - right) < 1e-6
    assert_close(gradient, want, 1e-4)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@chosen
def test_lora(own, checkpointing):
    """The adapters' gradients are the oracle's, with the handle on the PEFT model."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(0)
    model = peft.get_peft_model(own.build("sdpa", torch.float64), config).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    untouched = copy.deepcopy(model)
    untouched.get_base_model().set_attn_implementation("eager")
    inputs, labels = batch(model, own)
    set_checkpointing(model.get_base_model(), "reentrant" if checkpointing else "plain")
    with sl.apply(model, PYRAMID) as run:
        loss = loss_of(model(**inputs, labels=labels).logits, labels)
        loss.backward()
    turn = turn_of(run.report, inputs["input_ids"], PLACEHOLDERS)
    with oracle_of(untouched.get_base_model(), [PYRAMID], [turn], inputs["attention_mask"]):
        want = loss_of(untouched(**inputs, use_cache=False).logits, labels)
        want.backward()
    assert abs(loss.item() - want.item()) < 1e-6
    found = gradients(model)
    assert found and all("lora" in name for name in found)
    assert_close(found, gradients(untouched), 1e-4)


@chosen
def test_evaluation_between_steps_is_inference(own):
    model = own.build("sdpa").train()
    inputs, labels = batch(model, own)
    fresh = own.build("sdpa")
    with sl.apply(fresh, PYRAMID) as run:
        want = fresh.generate(**inputs, max_new_tokens=3, do_sample=False)
        kept = [[row.tolist() for row in stage.kept] for stage in run.reports[0].stages]
    with sl.apply(model, PYRAMID) as run:
        model(**inputs, labels=labels).loss.backward()
        trained = [[row.tolist() for row in stage.kept] for stage in run.report.stages]
        before = len(run.reports)
        model.eval()
        assert torch.equal(model.generate(**inputs, max_new_tokens=3, do_sample=False), want)
        assert [[row.tolist() for row in stage.kept] for stage in run.reports[before].stages] == kept
        with torch.no_grad():
            model(**inputs, labels=labels)  # the loss of an evaluation: labels say where answers begin, as in training
        assert [[row.tolist() for row in stage.kept] for stage in run.report.stages] == trained
        model.train()
        model(**inputs, labels=labels).loss.backward()
        assert [[row.tolist() for row in stage.kept] for stage in run.report.stages] == trained
    assert trained != kept
