"""A method at a budget, as it is applied, and whether that can be on a model."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import nn

import seeless as sl
from seeless import models
from seeless.eval.nominal import By, at_budget
from seeless.named.knobs import default_of
from seeless.named.strategies import choose
from seeless.strategy import Recipe

SAMPLE = 576  # tokens, where a model makes as many as the picture's size asks for


@dataclass(frozen=True)
class Candidate:
    """A method at a budget.

    Args:
        share: of the visual tokens; None where the method has its own way to say how many stay.
        fields: its budget by the name of the field, as it is written.
    """

    name: str
    share: float | None
    fields: dict[str, float | int]
    strategy: "sl.Strategy | Recipe"

    @property
    def call(self) -> str:
        """The line that puts it on a model.

        >>> candidate("vispruner", Fraction(2, 9), 576).call
        'sl.apply(model, "vispruner", keep=128)'
        """
        return f"sl.apply(model, {', '.join([chr(34) + self.name + chr(34), *self._written('{}={}')])})"

    def command(self, model: str) -> str:
        """The command that serves a model with it.

        >>> candidate("vispruner", Fraction(2, 9), None).command("owner/name")
        'seeless serve owner/name --strategy vispruner --keep 0.2222'
        """
        return " ".join([f"seeless serve {model} --strategy {self.name}", *self._written("--{} {}")])

    def _written(self, form: str) -> list[str]:
        return [form.format(name, value) for name, value in self.fields.items()]


def budget_of(share: Fraction, tokens: int | None) -> float | int:
    """How a share is written: as a number of tokens where pictures have a known number of which it is a whole one.

    >>> budget_of(Fraction(2, 9), 576), budget_of(Fraction(2, 9), None), budget_of(Fraction(1, 2), 729)
    (128, 0.2222, 0.5)
    """
    if tokens is not None and (share * tokens).denominator == 1:
        return int(share * tokens)
    return round(float(share), 4)


def candidate(name: str, share: Fraction, tokens: int | None) -> Candidate:
    """A method at a budget: `keep`, or of methods with a budget for each of several stages their `average`, which is
    what papers name their budget by.

    Args:
        tokens: of a picture, where all have as many.

    Raises:
        BudgetError: the method takes no such budget.
    """
    by: By = "average" if _has_stages(name) else "keep"
    budget = budget_of(share, tokens)
    try:
        return Candidate(name, float(share), {by: budget}, at_budget(name, budget, by=by))
    except sl.BudgetError:
        if not _finds_its_count(name):
            raise
        return Candidate(name, None, {}, sl.get(name))


def own_schedule(name: str) -> Candidate | None:
    """A method with a budget for each of several stages as its paper has them; None for all others."""
    return Candidate(name, None, {}, sl.get(name)) if _has_stages(name) else None


def reason_against(model: nn.Module, found: Candidate, tokens: int | None) -> str | None:
    """Why a model (or its skeleton) cannot run it; None if it can.

    Args:
        tokens: of a picture, where all have as many.
    """
    try:
        models.check_strategy(model, found.strategy)
        for part in found.strategy.parts() if isinstance(found.strategy, sl.Strategy) else ():
            depth = models.decoder_depth(model)
            for stage in range(len(part.layers(depth))):
                part.kept_of(stage, tokens or SAMPLE, depth)
    except sl.SeelessError as error:
        return str(error)
    return None


def _has_stages(name: str) -> bool:
    knobs = {knob.name: knob for knob in choose(name).knobs()}
    return "keep" in knobs and isinstance(default_of(knobs["keep"]), list)


def _finds_its_count(name: str) -> bool:
    try:
        strategy: Any = sl.get(name)
    except sl.BudgetError:  # its budget has to be given
        return False
    return strategy.own_count and strategy.keep is None
