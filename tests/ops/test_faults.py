"""What is wrong with a decision: kinds at once, values as numbers on the device, none of them read."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import seeless as sl
from seeless.decision import Extend
from seeless.faults import check_kinds, faults

UNITS, VISUAL = 2, 6
MASK = torch.tensor([[1, 1, 0, 0, 1, 0], [0, 1, 1, 1, 0, 0]], dtype=torch.bool)
SCORES = torch.arange(12.0).view(2, 6)


def found(decision, **more):
    """By what is wrong, the numbers; only what is wrong somewhere."""
    more = {"count": 3, "dtype": torch.float32, **more}
    numbers = {what: number.tolist() for what, number in faults(decision, **more).items()}
    assert all(len(number) == UNITS for number in numbers.values())
    return {what: number for what, number in numbers.items() if any(number)}


def one(decision, **more):
    ((what, numbers),) = found(decision, **more).items()
    return what, numbers


def merge(**more):
    index = torch.tensor([[0, 1], [1, 2]])
    return sl.Merge(**{"mask": MASK, "source": index, "slot": index, "weight": torch.ones(2, 2), **more})


def changed(tensor, place, value):
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


def test_nothing_is_wrong_with_what_is_right():
    assert found(sl.Keep(MASK, SCORES)) == found(sl.Keep(MASK)) == found(merge()) == {}
    assert found(sl.Keep.indices(torch.tensor([[4, 0, 1], [1, 2, 3]]), VISUAL)) == {}
    assert found(Extend(MASK, torch.zeros(2, 1, 4))) == {}
    assert found(merge(slot=torch.tensor([[0, 2], [1, 2]]), weight=torch.tensor([[1.0, 0.0], [1.0, 1.0]]))) == {}
    assert found(sl.Keep(changed(MASK, (0, 3), True)), count=None) == {}
    assert found(sl.Keep(MASK & False), count=None, may_be_empty=True) == {}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e39, -1e300])
def test_scores(value):
    what, numbers = one(sl.Keep(MASK, changed(SCORES.double(), (1, 2), value)))
    assert numbers == [0, 1] and ("NaN" in what) == (value != value)
    half = changed(SCORES.double(), (0, 0), value).half()  # too large for float16 is infinite before anyone looks
    assert one(sl.Keep(MASK, half))[1] == [1, 0]
    if value == value:
        assert found(sl.Keep(MASK, changed(SCORES.double(), (1, 2), value)), ranked=False) == {}


def test_counts():
    assert one(sl.Keep(changed(MASK, (1, 0), True))) == ("keeps {} tokens more than its budget of 3 allows", [0, 1])
    assert one(sl.Keep(MASK), count=5) == ("keeps {} tokens fewer than its budget of 5 asks for", [2, 2])
    assert one(sl.Keep(MASK & torch.tensor([[True], [False]])), count=None)[1] == [0, 1]


def test_indices():
    twice = sl.Keep.indices(torch.tensor([[0, 0, 1], [1, 2, 3]]), VISUAL)
    assert found(twice, count=None) == {"names {} tokens more than once": [1, 0]}
    outside = sl.Keep.indices(torch.tensor([[0, 6, -1], [1, 2, 3]]), VISUAL)
    assert found(outside, count=None) == {"names {} tokens that are not there (0 to 5 are)": [2, 0]}
    assert "fewer" in " ".join(found(twice)) and "fewer" in " ".join(found(outside))
    assert sl.Keep.indices(torch.tensor([[5, 0], [1, 2]], dtype=torch.int32), VISUAL).mask.sum(1).tolist() == [2, 2]


@pytest.mark.parametrize(
    "index", [torch.tensor([1, 2]), torch.tensor([[0.0, 1.0]]), MASK, [[1, 2]], None, torch.zeros(1, 1, 1).long()]
)
def test_indices_of_another_kind(index):
    with pytest.raises(sl.StrategyError, match=r"Keep\.indices got (a|None).*\[units, kept\]"):
        sl.Keep.indices(index, VISUAL)


@pytest.mark.parametrize(
    ("more", "part", "numbers"),
    [
        ({"weight": torch.tensor([[torch.nan, 1.0], [1.0, 1.0]])}, "weights", [1, 0]),
        ({"weight": torch.tensor([[1.0, 1.0], [torch.inf, -torch.inf]])}, "weights", [0, 2]),
        ({"source": torch.tensor([[0, 6], [1, 2]])}, "sources", [1, 0]),
        ({"source": torch.tensor([[0, 1], [-1, 9]])}, "sources", [0, 2]),
        ({"slot": torch.tensor([[0, 6], [1, 2]])}, "slots that are not there", [1, 0]),
        ({"slot": torch.tensor([[0, 1], [-1, 2]])}, "slots that are not there", [0, 1]),
        ({"slot": torch.tensor([[0, 2], [1, 4]])}, "slots whose tokens leave", [1, 1]),
    ],
)
def test_merges(more, part, numbers):
    decision = merge(**more)
    what, got = one(decision)
    assert part in what and got == numbers
    assert decision.values(torch.ones(2, 6, 3)).shape == (2, 6, 3)  # what is out of range ends nothing


def test_merges_in_the_models_own_type():
    big = merge(weight=torch.full((2, 2), 1e6))
    assert found(big) == {} and one(big, dtype=torch.float16)[1] == [2, 2]
    assert found(merge(source=torch.tensor([[0, 6], [1, 2]]), features="vision")) == {}  # the class token


def test_added_tokens():
    new = changed(torch.zeros(2, 2, 4), (1, 0, 3), torch.nan)
    assert one(Extend(MASK, new))[1] == [0, 1]


@pytest.mark.parametrize(
    ("decision", "part"),
    [
        (None, "gave None; is a return missing?"),
        (MASK, "gave a torch.bool tensor [2, 6]"),
        ([1, 2], "gave a list"),
        (sl.Keep(MASK.long()), "Keep(mask=...) with a torch.int64 tensor [2, 6]"),
        (sl.Keep(MASK[0]), "with a torch.bool tensor [6]; mask must be a tensor of bool of shape [2, 6]"),
        (sl.Keep(MASK[:, :5]), "mask must be"),
        (sl.Keep(MASK.tolist()), "Keep(mask=...) with a list"),
        (sl.Keep(MASK, SCORES[0]), "Keep(scores=...) with a torch.float32 tensor [6]"),
        (sl.Keep(MASK, SCORES.to(torch.complex64)), "scores must be a tensor of real numbers"),
        (merge(source=torch.zeros(2, 2)), "Merge(source=...) with a torch.float32 tensor [2, 2]"),
        (merge(source=torch.zeros(2).long()), "source must be a tensor of whole numbers of shape [2, ...]"),
        (merge(slot=torch.zeros(2, 3).long()), "slot must be a tensor of whole numbers of shape [2, 2]"),
        (merge(weight=[1.0]), "Merge(weight=...) with a list"),
        (merge(features="tower"), "choose hidden or vision"),
        (Extend(MASK, torch.zeros(2, 4)), "Extend(new=...)"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_kinds(decision, part):
    with pytest.raises(sl.StrategyError) as error:
        check_kinds(decision, MASK.shape, "Mine.select")
    assert str(error.value).startswith("Mine.select gave") and part in str(error.value)


def test_right_kinds():
    for decision in (
        sl.Keep(MASK, SCORES.half()),
        sl.Keep(MASK, SCORES > 3),
        merge(),
        Extend(MASK, torch.zeros(2, 0, 4)),
    ):
        check_kinds(decision, MASK.shape, "Mine.select")


class Reads(TorchDispatchMode):
    """Counts what would make a GPU wait: numbers read from tensors, and sizes that depend on values."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in func.name() for name in self.names):
            self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


def test_nothing_is_read():
    with Reads() as reads:
        bool(MASK.any())
    assert reads.seen  # it counts
    with Reads() as reads:
        keep = sl.Keep.indices(torch.tensor([[0, 0, 9], [1, 2, 3]]), VISUAL, SCORES)
        decisions = [
            keep,
            sl.Keep(MASK, SCORES),
            merge(weight=torch.full((2, 2), torch.nan)),
            Extend(MASK, torch.ones(2, 1, 4)),
        ]
        for decision in decisions:
            check_kinds(decision, MASK.shape, "Mine.select")
            for count in (3, None):
                assert faults(decision, count=count, dtype=torch.float16)
    assert reads.seen == []
