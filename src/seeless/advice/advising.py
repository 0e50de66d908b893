"""Advice about one model: for every use the methods that suit and run, in an order that a source gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

import seeless as sl
from seeless.advice.candidates import Candidate, candidate, own_schedule, reason_against
from seeless.advice.evidence import Ranking, published_of, rank
from seeless.advice.kin import PUBLISHED, nearest_first
from seeless.advice.suiting import facts_of, suits
from seeless.advice.uses import Use
from seeless.errors import one_line
from seeless.eval.published import figures
from seeless.models import ModelDescription
from seeless.registry import strategy_class


@dataclass(frozen=True)
class About:
    """A model to be advised on.

    Args:
        name: for people.
        checkpoint: what is to be pasted as its name; None where there is none (random weights).
        own: what sources call it; None if nothing is published for it.
        skeleton: the model without weights.
        tried: why it cannot run a method with some fields, of those that were asked for; None if it can.
    """

    name: str
    checkpoint: str | None
    own: str | None
    skeleton: nn.Module
    description: ModelDescription
    tried: dict[str, str | None] = field(default_factory=dict)

    def reason_against(self, one: Candidate) -> str | None:
        """Why the model cannot run it; None if it can."""
        if one.call not in self.tried:
            self.tried[one.call] = reason_against(self.skeleton, one, self.tokens)
        return self.tried[one.call]

    @property
    def tokens(self) -> int | None:
        """Visual tokens of a picture, where all pictures have as many."""
        return self.description.visual_tokens if self.description.per == "image" else None

    def with_figures(self) -> list[tuple[str, str]]:
        """Models that figures are published for: this one with "", then the nearest, with what they have in common."""
        others = [each for each in nearest_first(self.description) if each[0] != self.own]
        return [*([(self.own, "")] if self.own else []), *others]

    def with_any(self, found: Mapping[str, Candidate]) -> list[str]:
        """Those methods about which something is published near their budgets, on whatever model."""
        models = [model for model, _ in self.with_figures()]
        return [name for name, one in found.items() if any(published_of(each, name, one.share) for each in models)]


@dataclass(frozen=True)
class Suited:
    """What suits one use.

    Args:
        candidates: methods that suit and run, the one to begin with first: those that a source compares, or where none
            does those about which anything is published.
        refused: by name of a method that suits, why it cannot run on this model, or not as it is.
        ranking: what put them in this order; None if nothing is published about two of them.
        in_common: what the ranking's model has in common with this one; "" if it is this one.
    """

    use: Use
    candidates: tuple[Candidate, ...]
    refused: dict[str, str]
    ranking: Ranking | None
    in_common: str


def published_name(checkpoint: str | None, arch: str | None) -> str | None:
    """What sources call a checkpoint (a hub id) or an architecture; None if nothing is published for it.

    >>> published_name("llava-hf/llava-1.5-7b-hf", None), published_name(None, "qwen3-vl-8b"), published_name("a", None)
    ('LLaVA-1.5-7B', 'Qwen3-VL-8B', None)
    """
    names = {each.name for each in PUBLISHED}
    if arch is not None:
        return next((name for name in names if name.casefold() == arch), None)
    own = (each.model for each in figures() if each.checkpoint is not None and each.checkpoint == checkpoint)
    return next((model for model in own if model in names), None)


def suited(about: About, use: Use) -> Suited:
    """The methods for a use, at its budget, or where a model's depth does not allow it of a method with several stages,
    at the method's own."""
    found: dict[str, Candidate] = {}
    refused: dict[str, str] = {}
    for name in built_in():
        if not suits(use, facts_of(name, [about.description.model_type])):
            continue
        try:
            one = candidate(name, use.budget, about.tokens)
        except sl.SeelessError as error:
            refused[name] = one_line(error)
            continue
        if use.name == "video" and not about.description.videos:
            refused[name] = "this model takes no videos of their own, only their frames as a row of pictures"
            continue
        reason = about.reason_against(one)
        if reason is not None and (own := own_schedule(name)) is not None:
            one, reason = own, about.reason_against(own)
        if reason is None:
            found[name] = one
        else:
            refused[name] = reason
    ranking, in_common = ranked(about, {name: one.share for name, one in found.items()}, use.benchmarks)
    ranks = [place.method for place in ranking.places] if ranking else about.with_any(found)
    order = dict.fromkeys([*(name for name in use.first if name in found), *ranks, *found])
    return Suited(use, tuple(found[name] for name in order), refused, ranking, in_common)


def ranked(
    about: About, shares: Mapping[str, float | None], benchmarks: Sequence[str] = ()
) -> tuple[Ranking | None, str]:
    """The ranking of methods on the nearest model that has one, and what that model has in common with this one."""
    for model, in_common in about.with_figures():
        if (ranking := rank(shares, model, benchmarks)) is not None:
            return ranking, in_common
    return None, ""


def built_in() -> list[str]:
    """The methods of the package."""
    return [name for name in sl.available() if strategy_class(name).__module__.startswith("seeless.")]
