"""What a nominal budget is in each strategy's own terms: the one rule that sweeps go by."""

from dataclasses import MISSING
from typing import Any, Literal

import seeless as sl
from seeless.named.knobs import Values, build_strategies, default_of
from seeless.named.strategies import Choice, choose, guest_names, shadowed
from seeless.strategy import Recipe
from seeless.vtr import VTR_REGISTRY, CLSEStrategy

BUDGETS = ("keep", "average", "keep_ratio", "keep_tokens", "retain_ratio", "seed")
By = Literal["keep", "average"]


def all_strategies() -> list[str]:
    """Every strategy of seeless' own, and every guest that is not built in, by the names users give them."""
    guests = [
        name
        for name in guest_names()
        if not VTR_REGISTRY[name.partition(":")[2] or name].__module__.startswith("seeless.")
    ]
    return [*(name for name in sl.available() if name not in shadowed()), *guests]


def takes_seed(name: str) -> bool:
    """Whether a strategy draws random numbers by a field `seed`, so that it is worth running with several.

    >>> takes_seed("random"), takes_seed("fastv")
    (True, False)

    Raises:
        UnknownStrategy: no such name.
    """
    return "seed" in {knob.name for knob in choose(name).knobs()}


def at_budget(
    name: str, budget: float | int, seed: int = 0, values: Values | None = None, by: By = "keep"
) -> sl.Strategy | Recipe:
    """A strategy with its paper's defaults and a nominal budget.

    The budget is what its author would call it, which is not what it costs: that is the mean number of visual tokens
    per layer. In general it is `keep`; where `keep` is a list, of n stages, these fall in equal steps to a share r:
    r^(1/n), r^(2/n), ..., r. CLSE's and SparseVLM's one number stands for three stages already. Guests take a share as
    `keep_ratio`, CLSE as `retain_ratio`, and a number as `keep_tokens`.

    Args:
        budget: a share in (0, 1], or a number of tokens.
        seed: for a strategy that has one.
        values: other fields as texts, by their names or `strategy.field`; those of other strategies are left out.
        by: "average" if the budget is what a decoder layer shall see on average, which guests do not know.

    Raises:
        UnknownStrategy: no such name.
        BudgetError: a budget that the strategy cannot take, or a field that is the sweep's to set.

    >>> at_budget("fastv", 0.25).keep, [round(keep, 2) for keep in at_budget("pyramiddrop", 0.125).keep]
    (0.25, [0.5, 0.25, 0.12])
    """
    choice = choose(name)
    own = {each: text for each, text in (values or {}).items() if belongs(each, choice)}
    for each in own:
        if each.rpartition(".")[2] in BUDGETS:
            raise sl.BudgetError(f"{each} is set by the sweep, by --keep or --average, and --seed; leave it out")
    given = _budget(choice, budget, own) if by == "keep" else _average(choice, budget)
    if takes_seed(name):
        given["seed"] = str(seed)
    return build_strategies([name], {**own, **{f"{choice.prefix}.{knob}": text for knob, text in given.items()}})[0]


def belongs(value: str, choice: Choice) -> bool:
    """Whether a value is for a field of this strategy, by its name."""
    prefix, _, name = value.rpartition(".")
    names = {knob.name for knob in choice.knobs()}
    return prefix in ("", choice.prefix) and (name in names or name.removeprefix("no_") in names)


def _average(choice: Choice, budget: float | int) -> dict[str, str | None]:
    if "average" not in {knob.name for knob in choice.knobs()}:
        raise sl.BudgetError(f"{choice.name} knows no average over the layers; sweep it with --keep")
    return {"average": str(budget)}


def _budget(choice: Choice, budget: float | int, values: Values) -> dict[str, str | None]:
    share = isinstance(budget, float)
    if choice.guest is not None:
        ratio = "retain_ratio" if issubclass(VTR_REGISTRY[choice.guest], CLSEStrategy) else "keep_ratio"
        return {ratio if share else "keep_tokens": str(budget)}
    knobs = {knob.name: knob for knob in choice.knobs()}
    if "keep" not in knobs:
        raise sl.BudgetError(f"{choice.name} has no budget of its own, its members have; a sweep cannot set it")
    default: Any = default_of(knobs["keep"])
    if default is MISSING or not isinstance(default, list):
        return {"keep": str(budget)}
    if not share:
        raise sl.BudgetError(
            f"{choice.name} drops in {len(default)} stages, so a sweep gives it a share, not {budget} tokens"
        )
    layers = values.get("layer") or values.get(f"{choice.prefix}.layer") or ""
    stages = layers.count(",") + 1 if layers else len(default)
    return {"keep": ",".join(str(budget ** (stage / stages)) for stage in range(1, stages + 1))}
