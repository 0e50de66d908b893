"""Agreement and divergence against values worked out by hand, and what is kept of the untouched model."""

import math

import pytest
import torch

from seeless.eval.loyalty import Answers, agreement, divergence, load_answers, save_answers


def log(*shares):
    return torch.tensor(shares).log()


REFERENCE = Answers({"t/0": "red", "t/1": "4", "t/2": "7"}, {"t/0": log(0.5, 0.5), "t/1": log(0.25, 0.75)})
IDENTITY = {"model": "tiny", "tasks": ["scenes"], "limit": None}


def test_agreement_by_hand():
    found = agreement(Answers({"t/0": "red", "t/1": "5", "t/2": "7"}, {}), REFERENCE)
    assert (found.value, found.n) == (pytest.approx(2 / 3), 3) and found.low < 2 / 3 < found.high


def test_divergence_by_hand():
    """KL((1/2, 1/2) || (1/4, 3/4)) = log(2) / 2 + log(2/3) / 2; KL of equals is 0."""
    reduced = Answers({}, {"t/0": log(0.25, 0.75), "t/1": log(0.25, 0.75)})
    value, n = divergence(reduced, REFERENCE)
    assert n == 2 and value == pytest.approx((math.log(2) + math.log(2 / 3)) / 2 / 2, abs=1e-6)
    other_way, _ = divergence(REFERENCE, reduced)
    assert other_way == pytest.approx((math.log(1 / 2) / 4 + 3 / 4 * math.log(3 / 2)) / 2, abs=1e-6)


def test_a_model_agrees_with_itself():
    assert agreement(REFERENCE, REFERENCE).value == 1 and divergence(REFERENCE, REFERENCE) == (0.0, 2)


def test_impossible_tokens():
    ruled_out = Answers({}, {"t/0": log(1.0, 0.0)})
    assert divergence(ruled_out, ruled_out) == (0.0, 1)
    assert divergence(Answers({}, {"t/0": log(0.5, 0.5)}), ruled_out)[0] == pytest.approx(math.log(2))
    assert divergence(ruled_out, REFERENCE)[0] == math.inf


def test_records_that_only_one_answered_do_not_count():
    found = agreement(Answers({"t/1": "4", "t/9": "1"}, {}), REFERENCE)
    assert (found.value, found.n) == (1.0, 1)
    assert agreement(Answers({}, {}), REFERENCE) is None and divergence(Answers({}, {}), REFERENCE) is None


def test_answers_are_kept(tmp_path):
    file = tmp_path / "kept.safetensors"
    save_answers(REFERENCE, file, IDENTITY)
    again = load_answers(file, IDENTITY)
    assert again.words == REFERENCE.words and set(again.first) == set(REFERENCE.first)
    assert all(torch.equal(again.first[key], value) for key, value in REFERENCE.first.items())
    assert [path.name for path in tmp_path.iterdir()] == ["kept.safetensors"]


@pytest.mark.parametrize(("name", "value"), [("model", "other"), ("tasks", ["scenes", "mme"]), ("limit", 5)])
def test_answers_of_something_else_are_refused(tmp_path, name, value):
    file = tmp_path / "kept.safetensors"
    save_answers(REFERENCE, file, IDENTITY)
    reason = load_answers(file, {**IDENTITY, name: value})
    assert f"another run: {name} {IDENTITY[name]!r}, now {value!r}" in reason


def test_missing_and_damaged_answers(tmp_path):
    file = tmp_path / "kept.safetensors"
    assert "is not there" in load_answers(file, IDENTITY)
    save_answers(REFERENCE, file, IDENTITY)
    file.write_bytes(file.read_bytes()[:-7])
    assert "cannot be read" in load_answers(file, IDENTITY)
    file.write_bytes(b"no tensors")
    assert "cannot be read" in load_answers(file, IDENTITY)
