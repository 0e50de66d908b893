"""The same few cases in every `make test`, and what a failure tells; `make fuzz` runs as many as one likes."""

import pytest
from fuzz_cases import draw
from fuzz_families import FAMILIES
from fuzz_outcomes import outcome_of

from seeless.core.positions import TokenRow

CASES, PARTS = 80, 10


@pytest.mark.parametrize("part", range(PARTS))
def test_cases(part):
    found = [outcome_of(seed) for seed in range(1 + part, 1 + CASES, PARTS)]
    wrong = [own for own in found if own.kind == "wrong"]
    assert not wrong, "\n".join(f"{own.message}\n{own.case}" for own in wrong)
    assert sum(own.kind == "right" for own in found) >= len(found) // 2


def test_a_number_draws_the_same_case_again():
    cases = [draw(seed) for seed in range(500)]
    assert [draw(seed) for seed in range(50)] == cases[:50]
    assert {case.family for case in cases} == {tiny.name for tiny in FAMILIES}


def test_what_is_wrong_is_found_and_told(monkeypatch):
    """Positions that close up where they are to stay, and the other way round."""
    stock = TokenRow.cut
    monkeypatch.setattr(
        TokenRow, "cut", lambda row, stays, lengths, renumber, rank=None: stock(row, stays, lengths, not renumber, rank)
    )
    found = [outcome_of(seed) for seed in range(1, 13)]
    wrong = [own for own in found if own.kind == "wrong"]
    assert any("logits differ by" in own.message for own in wrong)
    assert all(str(own.case).startswith(f"{{'seed': {own.case.seed},\n") for own in wrong)
