"""`apply`: put strategies on a model, and take them off again."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import nn

from seeless.core.family import ModelView, unwrap
from seeless.errors import AlreadyApplied, BudgetError, SeelessError, UnsupportedModel
from seeless.families import family_of
from seeless.registry import get
from seeless.report import Report
from seeless.strategy import Recipe, Strategy

REPORTS_KEPT = 256

# Weak on both sides: the hooks on a model keep its handle alive, and nothing here keeps a model alive.
_handles: "WeakKeyDictionary[nn.Module, ref[Handle]]" = WeakKeyDictionary()


def active_handle(model: nn.Module) -> "Handle | None":
    """The handle a model carries, if any; also one whose variable is gone."""
    handle = _handles.get(unwrap(model))
    return None if handle is None else handle()


class Handle:
    """Strategies on a model, until `remove()` or the end of the `with` block.

    Args:
        model: as it was given to `apply`.
        strategies: in the order given.
        self_check: as in `apply`.
        prompt_length: as in `apply`.

    `reports` has those of the latest prefills, the oldest first, at most 256.
    """

    def __init__(
        self,
        model: nn.Module,
        strategies: list[Strategy],
        self_check: bool = True,
        prompt_length: "int | Sequence[int] | None" = None,
    ) -> None:
        from seeless.core.entry import Reducer  # with them come transformers' masks and torch.compile: seconds
        from seeless.core.host import warn_of_untested
        from seeless.core.stages import plan_stages

        warn_of_untested()
        inner = unwrap(model)
        view = ModelView(inner, family_of(_config(inner).model_type))
        self.model, self.strategies = model, strategies
        self.reports: deque[Report] = deque(maxlen=REPORTS_KEPT)
        self._carriers = [inner, view.base]  # so that no second handle comes to the base of a model that has one
        self._reducer = Reducer(view, plan_stages(strategies, view), self._add, self_check, prompt_length)
        if (active := active_handle(inner) or active_handle(view.base)) is not None:
            raise AlreadyApplied(
                f"this model already carries {active.strategies}; remove that handle first "
                "(seeless.api.active_handle(model).remove() if it is lost), or give all strategies as one list: "
                "apply(model, [first, second])"
            )
        self._reducer.attach()
        for module in self._carriers:
            _handles[module] = ref(self)

    @contextmanager
    def prompt(self, length: "int | Sequence[int]") -> Iterator[None]:
        """Say for the forwards in a `with` block, in this thread, where their prompts end and answers begin.

        Methods that ask the prompt's last tokens would ask the answer's instead where a forward holds both, as it does
        when likelihoods of given answers are computed (DPO, GRPO). Labels say it by themselves.

        Args:
            length: columns of the input before the answer, padding included; one number, or one per row.
        """
        running = self._reducer.running
        before, running.prompt_length = running.prompt_length, length
        try:
            yield
        finally:
            running.prompt_length = before

    def _add(self, report: Report) -> None:
        self.reports.append(report)

    @property
    def report(self) -> Report:
        """The report of the latest prefill that had visual tokens.

        Raises:
            SeelessError: there has been none.
        """
        if not self.reports:
            raise SeelessError("no prompt with an image has been seen yet; run the model first, then read the report")
        return self.reports[-1]

    def remove(self) -> None:
        """Leave the model exactly as it was. Safe to call twice."""
        if active_handle(self._carriers[0]) is self:
            self._reducer.detach()
            for module in self._carriers:
                _handles.pop(module, None)

    def __enter__(self) -> "Handle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def apply(
    model: nn.Module,
    strategy: "str | Strategy | Recipe | Sequence[Strategy | Recipe]",
    *,
    self_check: bool = True,
    prompt_length: "int | Sequence[int] | None" = None,
    **knobs: Any,
) -> Handle:
    """Make `model` look at fewer visual tokens.

    Args:
        model: an unmodified vision-language model of `transformers`, also wrapped by PEFT, DDP or torch.compile.
        strategy: a strategy, its name, or several strategies, which act in the order of the flow; a
            `seeless.vtr.VTRConfig` counts as one.
        self_check: whether the first forward on a class of models compares what seeless reads with what the model
            itself computes.
        prompt_length: columns of the input, padding included, that belong to the prompt, where a forward holds an
            answer, too; one number, or one per row. See `Handle.prompt`.
        knobs: fields of the strategy, if it is given by name.

    Returns:
        A handle: use it in a `with` block, or call its `remove()`. The model keeps its handle alive: one that nobody
        holds on to stays active, and `seeless.api.active_handle(model).remove()` takes it off.

    Raises:
        UnsupportedModel: no family knows this model, or it has a feature that cannot be reduced.
        BudgetError: a budget, layer or field that is not possible.
        UnknownStrategy: no strategy of this name.
        AlreadyApplied: the model carries strategies already.

    >>> import seeless.tiny
    >>> model, processor = seeless.tiny.load_tiny()
    >>> scene = seeless.tiny.draw_scene(seed=3)
    >>> chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "how many digits?"}]}]
    >>> prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    >>> inputs = processor(images=scene.image, text=prompt, return_tensors="pt")
    >>> with apply(model, "fastv", keep=0.25) as run:
    ...     ids = model.generate(**inputs, max_new_tokens=2)
    >>> run.report.n_before, run.report.n_after
    ([144], [36])
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(_no_model(model))
    if isinstance(strategy, str):
        return Handle(model, [get(strategy, **knobs)], self_check, prompt_length)
    given: list[Any] = list(strategy) if isinstance(strategy, list | tuple) else [strategy]
    if knobs:
        raise BudgetError(f"{sorted(knobs)} belong to a strategy given by name; set them on the strategy itself")
    if not given or not all(isinstance(each, Strategy | Recipe) for each in given):
        raise BudgetError(f"{strategy!r} is no strategy; give one, its name, or a list of strategies")
    return Handle(model, [resolved(each, model) for each in given], self_check, prompt_length)


def resolved(strategy: Strategy | Recipe, model: nn.Module) -> Strategy:
    """The strategy itself, or what a recipe gives on this model."""
    return strategy if isinstance(strategy, Strategy) else strategy.strategy_for(_config(model))


def _no_model(given: Any) -> str:
    """What to do about something that was given in place of a model."""
    if isinstance(given, str):
        return f"{given!r} is a name; load the model first: AutoModelForImageTextToText.from_pretrained({given!r})"
    if isinstance(given, type):
        return f"{given.__name__} is a class; give a model made by {given.__name__}.from_pretrained(...)"
    if isinstance(getattr(given, "model", None), nn.Module):
        return f"a {type(given).__name__} is no model; give its model: apply(that.model, ...)"
    return f"{given!r} is no model; give a loaded model of transformers"


def _config(model: nn.Module) -> Any:
    inner = unwrap(model)
    config = getattr(inner, "config", None)
    if getattr(config, "model_type", None) is None:
        raise UnsupportedModel(f"{type(inner).__name__} is no transformers model: it has no config.model_type")
    return config
