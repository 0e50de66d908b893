"""Router: a strategy of its own before each of several layers."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from seeless.budget import Budget, check_schedule
from seeless.errors import BudgetError
from seeless.registry import from_dict, register
from seeless.strategy import EntryStrategy, LayerStrategy, Past, Positions, Scope, Stage, Strategy


@register("router")
class Router(Strategy):
    """Run each of several strategies before a layer of its own: `Router({3: PriorTR(keep=192), 7: FastV(keep=64)})`.

    Formula: those of its members; it has no score of its own.
    Signal: those of its members.

    Its members act, and are reported, as if they were given to `apply` as a list, with `layer` set to their key; `keep`
    is the list of their budgets, read-only. All else is the members' own affair.

    Args:
        members: one strategy per layer, 0 being the entry of the decoder; each has one budget and acts before one
            layer. Budgets of the same kind (numbers, shares) never grow. The dicts of `to_dict` are taken, too.

    Raises:
        BudgetError: no members, one that is no strategy or acts in several places or cannot act before its layer, or
            budgets that grow.
    """

    members: dict[int, Strategy]
    keep: Budget | list[Budget] = field(init=False, repr=False)
    average: Budget | None = field(default=None, init=False, repr=False)
    threshold: float | None = field(default=None, init=False, repr=False)
    scope: Scope = field(default="row", init=False, repr=False)
    positions: Positions | None = field(default=None, init=False, repr=False)
    past: Past = field(default="keep", init=False, repr=False)
    newlines: bool = field(default=False, init=False, repr=False)
    stage = Stage.LAYER
    tower = ()

    def __post_init__(self) -> None:
        if not isinstance(self.members, Mapping) or not self.members:
            raise BudgetError(f"members={self.members!r} routes nothing; give a dict {{layer: strategy}}")
        pairs = sorted(((_layer(key), member) for key, member in self.members.items()), key=lambda pair: pair[0])
        placed = [(layer, _placed(layer, member)) for layer, member in pairs]
        budgets = [member.budget(0) for _, member in placed]
        check_schedule(budgets, [layer for layer, _ in placed])
        object.__setattr__(self, "members", dict(placed))
        object.__setattr__(self, "keep", budgets)
        super().__post_init__()

    def parts(self) -> list[Strategy]:
        return list(self.members.values())

    def layers(self, depth: int) -> list[int]:
        return [layer for member in self.parts() for layer in member.layers(depth)]

    def to_dict(self) -> dict[str, Any]:
        members = {str(layer): member.to_dict() for layer, member in self.members.items()}
        return {"strategy": self.name, "members": members}


def _layer(key: Any) -> int:
    if isinstance(key, str) and key.isdecimal():  # as JSON has it
        return int(key)
    if isinstance(key, bool) or not isinstance(key, int) or key < 0:
        raise BudgetError(f"members has the key {key!r}; keys are layers, 0 (the entry) or a whole number above")
    return key


def _placed(layer: int, member: Any) -> Strategy:
    """The member, acting before `layer`."""
    member = from_dict(member) if isinstance(member, Mapping) else member
    if not isinstance(member, Strategy):
        raise BudgetError(f"members has {member!r} before layer {layer}, which is no strategy")
    name = type(member).__name__
    if isinstance(member, EntryStrategy):
        if layer > 0:
            raise BudgetError(f"{name} acts at the entry, not before layer {layer}; give it the key 0")
        return member
    if not isinstance(member, LayerStrategy) or not isinstance(member.layer, int) or isinstance(member.keep, list):
        raise BudgetError(f"{name} before layer {layer} acts in several places; give it one layer= and one keep=")
    if layer < member.lowest_layer:
        raise BudgetError(f"{name} cannot act at the entry (key 0); the first key it can have is {member.lowest_layer}")
    return dataclasses.replace(member, layer=layer)
