"""What may be wrong with a decision: what types and shapes say at once, and what values say once they are there."""

from typing import Any

import torch

from seeless.decision import WHOLE, Decision, Extend, Keep, Merge, described, within
from seeless.errors import StrategyError


def check_kinds(decision: Any, shape: torch.Size, given_by: str) -> None:
    """What can be said of a decision without looking at values: types and shapes.

    Args:
        shape: `[units, visual]` of what was decided about.
        given_by: class and method, for the message.

    Raises:
        StrategyError: it is no decision, or a tensor of it does not fit.
    """
    units, visual = shape
    if not isinstance(decision, Keep | Merge | Extend):
        missing = "; is a return missing?" if decision is None else ""
        raise StrategyError(
            f"{given_by} gave {described(decision)}{missing}; return sl.Keep or sl.Merge with a bool mask of shape "
            f"{[units, visual]} [units, visual]"
        )
    whole, real = "whole numbers", "real numbers"
    wanted: list[tuple[str, Any, str, list[int | None]]] = [("mask", decision.mask, "bool", [units, visual])]
    if decision.scores is not None:
        wanted.append(("scores", decision.scores, real, [units, visual]))
    if isinstance(decision, Merge):
        source = decision.source
        entries = source.shape[1] if isinstance(source, torch.Tensor) and source.ndim == 2 else None
        wanted += [(name, getattr(decision, name), whole, [units, entries]) for name in ("source", "slot")]
        wanted.append(("weight", decision.weight, real, [units, entries]))
    if isinstance(decision, Extend):
        wanted.append(("new", decision.new, real, [units, None, None]))
    for name, value, kind, sizes in wanted:
        if not (isinstance(value, torch.Tensor) and _is(value, kind) and _has(value, sizes)):
            shown = ", ".join("..." if size is None else str(size) for size in sizes)
            raise StrategyError(
                f"{given_by} gave {type(decision).__name__}({name}=...) with {described(value)}; {name} must be a "
                f"tensor of {kind} of shape [{shown}]"
            )
    if isinstance(decision, Merge) and decision.features not in ("hidden", "vision"):
        raise StrategyError(f"{given_by} gave Merge(features={decision.features!r}); choose hidden or vision")


def faults(
    decision: Decision, *, count: int | None = None, may_be_empty: bool = False, ranked: bool = True, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """What is wrong with the values of a decision, computed where they are, without waiting for them.

    Args:
        count: how many tokens each unit must keep; None: as many as it likes.
        may_be_empty: whether a unit may keep none.
        ranked: whether tokens were ranked by the decision's scores, so that infinite ones tell nothing apart.
        dtype: of the hidden states, which merged values must fit into.

    Returns:
        By what is wrong, with "{}" for its number: `[units]` whole numbers, 0 where nothing is. The core reads them
        when it waits for the device anyway.
    """
    visual, kept = decision.mask.shape[1], decision.mask.sum(1)
    found = {}
    if count is not None:
        found[f"keeps {{}} tokens more than its budget of {count} allows"] = (kept - count).clamp(min=0)
        found[f"keeps {{}} tokens fewer than its budget of {count} asks for"] = (count - kept).clamp(min=0)
    elif not may_be_empty:
        found["keeps no token; every unit keeps at least one"] = kept == 0
    if decision.scores is not None:
        scores = decision.scores.float()
        found["has {} scores that are NaN"] = scores.isnan().sum(1)
        if ranked:
            found["has {} scores that are infinite, or too large for float32"] = scores.isinf().sum(1)
    if isinstance(decision, Keep) and decision.named is not None:
        found["names {} tokens more than once"] = (decision.named[:, :visual] > 1).sum(1)
        found[f"names {{}} tokens that are not there (0 to {visual - 1} are)"] = decision.named[:, visual]
    if isinstance(decision, Merge):
        last = visual if decision.features == "vision" else visual - 1
        wrong = (decision.slot < 0) | (decision.slot >= visual)
        leaves = ~decision.mask.gather(1, within(decision.slot, visual)) & ~wrong & (decision.weight != 0)
        found["has {} weights that are NaN or infinite in the model's type"] = _unfit(decision.weight, dtype)
        found[f"merges {{}} sources that are not there (0 to {last} are)"] = (
            (decision.source < 0) | (decision.source > last)
        ).sum(1)
        found[f"merges into {{}} slots that are not there (0 to {visual - 1} are)"] = wrong.sum(1)
        found["gives weight to {} slots whose tokens leave"] = leaves.sum(1)
    if isinstance(decision, Extend):
        found["adds {} numbers that are NaN or infinite in the model's type"] = _unfit(decision.new, dtype)
    return found


def _unfit(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`[units]`, how many are no finite numbers in a type."""
    return (~values.to(dtype).isfinite()).flatten(1).sum(1)


def _is(value: torch.Tensor, kind: str) -> bool:
    if kind == "bool":
        return value.dtype == torch.bool
    return value.dtype in WHOLE if kind == "whole numbers" else not value.is_complex()


def _has(value: torch.Tensor, sizes: list[int | None]) -> bool:
    return value.ndim == len(sizes) and all(want in (None, have) for want, have in zip(sizes, value.shape, strict=True))
