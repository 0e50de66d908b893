"""A strategy's own code is foreign: its exceptions say where they come from, and its decisions are checked."""

import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch

from seeless.core.units import Unit
from seeless.decision import Decision
from seeless.errors import InputError, Origin, SeelessError, StrategyError
from seeless.faults import check_kinds, faults
from seeless.strategy import Strategy

NOT_THEIRS = ("seeless", "torch", "transformers", "functools")


@contextmanager
def asking(strategy: object, stage: str) -> Iterator[None]:
    """Around calls of a strategy's code: an exception out of it gets a note that says where it was raised.

    Its type stays what it was. A `StrategyError` says it in its message, and so does an `InputError` out of a question
    that code outside of seeless asked; other errors of seeless need no more.

    Args:
        stage: in words, "stage 0, before layer 2".
    """
    try:
        yield
    except InputError as error:
        if isinstance(error, StrategyError) or _places(error):
            error.args = (f"{_origin(error, strategy, stage)}: {error}",)
        raise
    except SeelessError:
        raise
    except (Exception, SystemExit) as error:
        notes = getattr(error, "__notes__", [])  # `add_note` is there from Python 3.11 on, the convention before it
        error.__notes__ = [*notes, Origin(_origin(error, strategy, stage))]
        raise


def _origin(error: BaseException, strategy: object, stage: str) -> str:
    """File and line that raised: the deepest in the first file that is not ours; then strategy and stage."""
    name = type(strategy).__name__
    if not (theirs := _places(error)):
        return f"{name}, {stage}"
    file, line, function = [place for place in theirs if place[0] == theirs[0][0]][-1]
    return f"{file}:{line}, in {function} of {name}, {stage}"


class WhileAsked:
    """What a strategy's questions go to, until its stage is over: later, other tokens stand where it would look.

    Args:
        answers: what they are passed on to.
    """

    def __init__(self, answers: object) -> None:
        self.answers, self.over = answers, False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copying asks for
            raise AttributeError(name)
        if self.over:
            raise StrategyError(
                f"ctx was asked for {name} after its stage; ask during the stage, and put what a later stage of this "
                "prefill needs into ctx.memory (a guest: attention.dense() into its context)"
            )
        return getattr(self.answers, name)


def layers_of(strategy: Strategy, method: str, depth: int) -> list[int]:
    """What `layers` or `watches` says of a decoder of `depth` layers; `depth` itself: after the last one.

    Raises:
        StrategyError: it is no list of layers.
    """
    given = getattr(strategy, method)(depth)
    if not (isinstance(given, Collection) and all(isinstance(n, Integral) and 0 <= int(n) <= depth for n in given)):
        raise StrategyError(
            f"{type(strategy).__name__}.{method} returned {given!r}; return a list of whole numbers, of layers 0 to "
            f"{depth - 1}"
        )
    return [int(layer) for layer in given]


def _places(error: BaseException) -> list[tuple[str, int, str]]:
    """File, line and function of what an error went through that is not ours."""
    return [
        (frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in NOT_THEIRS
    ]


@dataclass(frozen=True)
class Finding:
    """Faults of one decision.

    Args:
        where: strategy and stage.
        unit: what a unit of the decision is called, by its number.
        what: kinds of faults, with "{}" for their number.
        numbers: `[kinds, units]`, 0 where there is no fault.
    """

    where: str
    unit: Callable[[int], str]
    what: Sequence[str]
    numbers: torch.Tensor


class Findings:
    """What is wrong with the decisions of one prefill, gathered on the device.

    `add` never waits for the device. Who waits for it anyway reads `numbers` in the same breath and gives them to
    `check`.
    """

    def __init__(self) -> None:
        self._found: list[Finding] = []

    def add(self, where: str, unit: Callable[[int], str], found: Mapping[str, torch.Tensor]) -> None:
        """Keep what `faults` found in a decision.

        Args:
            where: strategy and stage.
            unit: what a unit is called, by its number in the decision.
        """
        if found:
            numbers = torch.stack([number.to(torch.int32) for number in found.values()])
            self._found.append(Finding(where, unit, list(found), numbers))

    def extend(self, other: "Findings") -> None:
        """Take over what was found elsewhere."""
        self._found += other._found

    def numbers(self) -> torch.Tensor | None:
        """All numbers in one row; None if nothing was looked at."""
        if not self._found:
            return None
        device = self._found[-1].numbers.device
        return torch.cat([finding.numbers.flatten().to(device) for finding in self._found])

    def check(self, numbers: Sequence[int] | None = None) -> None:
        """Raise `StrategyError` for the first fault.

        Args:
            numbers: those of `numbers()`, on the host; None waits for them.
        """
        if numbers is None:
            own = self.numbers()
            numbers = [] if own is None else own.tolist()
        left = iter(numbers)
        for finding in self._found:
            kinds, units = finding.numbers.shape
            table = [[next(left) for _ in range(units)] for _ in range(kinds)]
            for unit in range(units):
                for what, number in zip(finding.what, table, strict=True):
                    if number[unit]:
                        raise StrategyError(f"{finding.where}, {finding.unit(unit)}: it {what.format(number[unit])}")


def check_decision(strategy: Strategy, decision: object, shape: torch.Size) -> None:
    """Raise `StrategyError` unless a strategy's answer is a decision about `[units, visual]` tokens."""
    method = "select" if type(strategy).reduce is Strategy.reduce else "reduce"
    check_kinds(decision, shape, f"{type(strategy).__name__}.{method}")


def count_of(strategy: Strategy, stage_index: int, decision: Decision, count: int) -> int | None:
    """How many tokens of each unit stay, as far as the strategy or its decision has promised; None: only values tell.

    Args:
        count: tokens that the budget leaves each unit; `select` keeps to it, unless scores decide or it is `adaptive`.
    """
    kind = type(strategy)
    exact = kind.reduce is Strategy.reduce and not strategy.adaptive and not strategy.by_threshold(stage_index)
    return count if exact else decision.count


def faults_at(strategy: Strategy, decision: Decision, count: int | None, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """`faults` of a decision, by what the strategy has promised of it.

    Args:
        count: `count_of` the decision.
        dtype: of the hidden states.
    """
    ranked = type(strategy).score is not Strategy.score
    return faults(decision, count=count, may_be_empty=strategy.may_drop_all, ranked=ranked, dtype=dtype)


def name_of(units: Sequence[Unit], unit: Unit, scope: str) -> str:
    """What a unit of a scope is called: "image 1 of row 0", counted from 0."""
    own = [other for other in units if other.row == unit.row]
    number = next(i for i, other in enumerate(own) if other is unit)
    return f"row {unit.row}" if scope == "row" else f"{scope} {number} of row {unit.row}"
