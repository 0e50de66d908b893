"""One model on its way through a case: what carries the strategies, and what is noted of every prefill."""

from contextlib import AbstractContextManager, ExitStack

import torch
from fuzz_cases import Case
from fuzz_talk import Talk
from fuzz_truth import Prefill, States, merges, rows_of

import seeless as sl
from tinies import Tiny


class Run(AbstractContextManager):
    """The model of a case under its strategies, while `with` lasts; without strategies, the model as it is.

    `talk` is the conversation, `untouched` a model that the oracle runs.
    """

    def __init__(self, case: Case, tiny: Tiny, model, untouched, talk: Talk, strategies: list[sl.Strategy]) -> None:
        self.case, self.tiny, self.talk, self.strategies = case, tiny, talk, strategies
        self.model, self.untouched = model, untouched
        self.noted: list[dict[int, torch.Tensor]] = []

    def __enter__(self) -> "Run":
        self.states, self.handle = None, None
        with ExitStack() as stack:
            if merges(self.strategies):
                self.states = States(self.model)
                stack.callback(self.states.close)
            if self.strategies:
                self.handle = stack.enter_context(sl.apply(self.model, self.strategies))
            stack.callback(self.model.register_forward_hook(self._note).remove)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self.stack.close()

    def _note(self, *call) -> None:
        if len(self.reports) > len(self.noted):
            self.noted.append({} if self.states is None else dict(self.states.latest))

    @property
    def reports(self) -> list[sl.Report]:
        return [] if self.handle is None else list(self.handle.reports)

    def prefill(self, number: int, start: int, end: int, rows: list[int] | None = None) -> Prefill:
        """What was noted of one prefill with pictures, of a turn in these columns; some of its rows, if told."""
        report, states = self.reports[number], self.noted[number]
        if rows is not None:
            report, states = rows_of(report, rows), {layer: own[rows] for layer, own in states.items()}
        return Prefill(report, states, start, end)
