"""Fields take what their annotations say, from Python as from the command line."""

import dataclasses
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch

import seeless as sl
from seeless.fields import field_types, fits, members_of, takes
from seeless.registry import strategy_class

PLAIN = (bool, int, float, str, type(None))
VALUES = (True, False, "False", "True", "", "x", 3, 2.5, None, [], [1], ["x"], [True], [[1]], (1, "x"), {"a": 1}, b"x")


def plain(annotation):
    """Whether an annotation is of the kinds that are checked."""
    if get_origin(annotation) is list:
        return all(map(plain, get_args(annotation)))
    members = members_of(annotation)
    return all(
        member in PLAIN or get_origin(member) is Literal or (get_origin(member) is list and plain(member))
        for member in members
    )


def belongs(value, annotation):
    """What `fits` says, written another way: by the exact type, value by value."""
    for member in members_of(annotation):
        if get_origin(member) is Literal and repr(value) in map(repr, get_args(member)):
            return True
        listed = get_origin(member) is list and type(value) in (list, tuple)
        if listed and all(belongs(item, get_args(member)[0]) for item in value):
            return True
        if type(value) is member or (member is float and type(value) is int):
            return True
    return False


def fields_to_try():
    for name in sl.available():
        cls = strategy_class(name)
        for knob in dataclasses.fields(cls):
            if knob.init and knob.name != "keep" and plain(field_types(cls)[knob.name]):
                yield pytest.param(name, knob.name, id=f"{name}-{knob.name}")


@pytest.mark.parametrize(("name", "knob"), list(fields_to_try()))
def test_values_of_other_types_are_refused(name, knob):
    cls = strategy_class(name)
    annotation = field_types(cls)[knob]
    default = next(field for field in dataclasses.fields(cls) if field.name == knob).default
    for value in VALUES:
        if belongs(value, annotation) or value is default:
            continue
        with pytest.raises(sl.BudgetError) as error:
            sl.get(name, keep=0.5, **{knob: value}) if name != "pyramiddrop" else sl.PyramidDrop(**{knob: value})
        assert knob in str(error.value) or "keep=" in str(error.value), (value, str(error.value))


@pytest.mark.parametrize(
    "value", ["half", "0.5", None, [None], True, {"a": 1}, b"x", ["0.5", "0.25"], [[0.5]]], ids=str
)
@pytest.mark.parametrize("cls", [sl.FastV, sl.PyramidDrop, sl.SparseVLM, sl.FasterVLM, sl.ToMe])
def test_budgets_of_other_types_are_refused(cls, value):
    with pytest.raises(sl.BudgetError):
        cls(keep=value)


def test_what_was_taken_for_true():
    with pytest.raises(sl.BudgetError, match="newlines='False' is not possible; it takes True or False"):
        sl.FastV(keep=0.5, newlines="False")
    with pytest.raises(sl.BudgetError, match="newlines=1 is not possible"):
        sl.FastV(keep=0.5, newlines=1)
    with pytest.raises(sl.BudgetError, match="scope='batch' is not possible; choose one of row, image, crop, frame"):
        sl.FastV(keep=0.5, scope="batch")


def test_numbers_of_other_libraries_are_numbers():
    strategy = sl.Random(keep=np.float32(0.5), layer=np.int64(3), seed=torch.tensor(4).numpy()[()])
    assert (strategy.keep, strategy.layer, strategy.seed) == (0.5, 3, 4) and type(strategy.layer) is int


def test_fields_of_ones_own():
    class Mine(sl.LayerStrategy):
        weight: float = 0.1
        mode: Literal["a", 1] = "a"
        names: list[str] | None = None
        table: dict[str, int] | None = None
        anything: Any = None
        sloppy: int = None  # type: ignore[assignment]

        def score(self, ctx):
            return ctx.index.float()

    mine = Mine(keep=4, weight=2, mode=1, names=("x",), table={"a": "b"}, anything=object())
    assert mine.names == ["x"] and mine.sloppy is None  # a default is the author's business
    wrong = {"weight": ["0.1", True, None], "mode": ["b", True, 1.0], "names": ["x", [1], [None]], "sloppy": ["1", 1.5]}
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(sl.BudgetError, match=f"{name}="):
                Mine(keep=4, **{name: value})


KINDS = [int, float, bool, str, int | None, list[int] | int, Literal["a", 2], list[list[str]]]


@pytest.mark.parametrize("annotation", KINDS, ids=str)
def test_fits_is_what_types_say(annotation):
    for value in VALUES:
        if not isinstance(value, tuple):  # a strategy has made lists of these
            assert fits(value, annotation) == belongs(value, annotation), (value, annotation)


def test_in_words():
    assert takes(float | int | list[int] | None) == "number, whole number, comma-separated list or none"
    assert takes(bool) == "true or false" and takes(Literal["x", "y"] | None) == "x, y or none"


def test_annotations_that_only_a_type_checker_can_read():
    class Mine(sl.LayerStrategy):
        table: "Unknown | None" = None  # noqa: F821

        def score(self, ctx):
            return ctx.index.float()

    with pytest.raises(sl.BudgetError, match=r"annotations of Mine cannot be read: name 'Unknown'.*TYPE_CHECKING"):
        Mine(keep=4)
