"""Answers of a model, with all visual tokens and with fewer."""

from typing import TYPE_CHECKING, Any

import seeless as sl
from seeless import models
from seeless.named.checkpoints import LoadedModel

if TYPE_CHECKING:
    from seeless.strategy import Recipe


def answer_reduced(
    loaded: LoadedModel, inputs: Any, strategy: "sl.Strategy | Recipe", max_new_tokens: int
) -> tuple[str, sl.Report]:
    """The model's answer under a strategy, greedy, and the report.

    Raises:
        SeelessError: the strategy cannot be had on this model or these inputs.
        BudgetError: a number of tokens that is larger than anything there was to rank.
    """
    with sl.apply(loaded.model, strategy) as handle:
        answer = generate_answer(loaded, inputs, max_new_tokens)
    if isinstance(strategy, sl.Strategy):  # a guest's framework keeps all where there are fewer
        _check_count(strategy, handle.report, models.crop_tokens(loaded.model))
    return answer, handle.report


def generate_answer(loaded: LoadedModel, inputs: Any, max_new_tokens: int) -> str:
    """The model's answer, greedy."""
    ids = loaded.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return loaded.processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0].strip()


def _check_count(strategy: sl.Strategy, report: sl.Report, crop_tokens: int | None) -> None:
    """Raise `BudgetError` if a number of tokens is larger than anything there was to rank."""
    keeps = strategy.keep if isinstance(strategy.keep, list) else [strategy.keep]
    images = [len(boxes) for row in report.boxes for boxes in row]
    what, there = "image", max(images)
    if strategy.scope == "row" and len(images) > 1:
        what, there = "prompt", max(report.n_before)
    elif strategy.scope == "crop" and crop_tokens is not None and crop_tokens < there:
        what, there = "crop", crop_tokens
    for keep in keeps:
        if isinstance(keep, int) and keep > there:
            raise sl.BudgetError(f"keep={keep}, but the {what} has {there} visual tokens; use --keep 1.0 to keep all")
