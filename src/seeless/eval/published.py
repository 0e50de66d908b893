"""Figures that others have published, with their sources: a table that ships with the package.

Nothing in it was measured with seeless. `data/README.md` in the repository says where it comes from and how it is made.
"""

import importlib.util
import math
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import seeless as sl
from seeless.errors import brief, did_you_mean
from seeless.eval.errors import InvalidRequest
from seeless.eval.targets import SHORT
from seeless.models import converted_name
from seeless.named.strategies import GUEST

PUBLISHED = Path(__file__).with_name("published.parquet")
NEEDED = 'published figures need pyarrow: pip install "seeless[published]"'
EACH_CROP = ("crop", "frame")  # the scopes in which a number of tokens is that of every crop
SAME_SHARE = 0.0006  # 11.1 % is 0.111 to some and 0.1111 to others


@dataclass(frozen=True)
class Figure:
    """One published figure.

    Args:
        method, model, benchmark, budget, metric: as the source prints them.
        source: a short name of the source, `citation` the long one.
        setting: what the source did in a way of its own; "" if nothing is known.
        suspect: why the figure may be wrong; "" if nothing speaks against it.
        strategy: what the method is called here, "none" being the untouched model; None if it has no name.
        checkpoint: on the hub, for `transformers`; None if there is none.
        task, task_metric: of lmms-eval; None if there are none.
        scale: what a measured value is multiplied by to be compared.
        tokens: visual tokens kept, of `of`; None where the source gives a share, or something else.
        crops: how many crops or frames of equally many tokens `of` is the sum of.
        share: of the visual tokens kept.
    """

    method: str
    model: str
    benchmark: str
    budget: str
    metric: str
    value: float
    source: str
    citation: str
    setting: str
    suspect: str
    strategy: str | None
    checkpoint: str | None
    task: str | None
    task_metric: str | None
    scale: float | None
    tokens: int | None
    of: int | None
    crops: int
    share: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @property
    def trusted(self) -> bool:
        """Whether a measured value may be judged by it."""
        return not self.suspect and not self.setting

    def has_budget(self, budget: float | int, scope: str | None = "row") -> bool:
        """Whether it is for a budget: a share of the tokens (float), or their number (int).

        Args:
            scope: of a strategy, which says what the number is about: all tokens, or those of a crop or frame. None
                where that is not known: then no number fits a model with several crops.
        """
        if self.share is None:
            return False
        if isinstance(budget, int):
            if scope is None and self.crops > 1:
                return False
            return self.tokens is not None and self.tokens == budget * (self.crops if scope in EACH_CROP else 1)
        if self.of is None or self.tokens is None:
            return math.isclose(budget, self.share, abs_tol=SAME_SHARE)
        return abs(budget * self.of - self.tokens) < 0.5


def can_read() -> bool:
    """Whether what reads the table is installed."""
    return importlib.util.find_spec("pyarrow") is not None


def figures() -> tuple[Figure, ...]:
    """All of them.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    if not can_read():
        raise sl.MissingExtra(NEEDED)
    return _read(PUBLISHED)


@cache
def _read(file: Path) -> tuple[Figure, ...]:
    import pyarrow.parquet as pq

    return tuple(Figure(**row) for row in pq.read_table(file).to_pylist())


def chosen(
    method: str | None = None, model: str | None = None, benchmark: str | None = None, budget: str | None = None
) -> list[Figure]:
    """The figures of a method, model, benchmark and budget, by the names of sources or those of seeless.

    Args:
        method: "pyramiddrop" or "PDrop"; "none" for the untouched model.
        model: a hub id, a short name of `seeless eval`, or "LLaVA-1.5-7B".
        benchmark: a task of lmms-eval, or "MME-P".
        budget: tokens ("128"), a share ("0.25", "25%"), or what the source prints.

    Raises:
        InvalidRequest: there is no figure of this name, or none of all of them together.
    """
    found = list(figures())
    method = method and method.removeprefix(GUEST)
    model = model and converted_name(SHORT[model].pretrained if model in SHORT else model)
    found = _named(found, "method", method, lambda figure: (figure.strategy, figure.method))
    found = _named(found, "model", model, lambda figure: (figure.checkpoint, figure.model))
    found = _named(found, "benchmark", benchmark, lambda figure: (figure.task, figure.benchmark))
    if budget is not None:
        kept = [figure for figure in found if figure.budget == budget or _is_budget(figure, budget)]
        if not kept:
            there = ", ".join(dict.fromkeys(figure.budget for figure in found))
            raise InvalidRequest(f"no figure is for the budget {brief(budget)}; there are {there}")
        found = kept
    return sorted(found, key=lambda figure: (figure.model, figure.benchmark, -(figure.share or 0)))


def _named(found: list[Figure], kind: str, name: str | None, names: Any) -> list[Figure]:
    if name is None:
        return found
    kept = [figure for figure in found if name.casefold() in (each.casefold() for each in names(figure) if each)]
    if kept:
        return kept
    everywhere = {each for figure in figures() for each in names(figure) if each}
    there = sorted({each for figure in found for each in names(figure) if each})
    if name.casefold() in map(str.casefold, everywhere):
        raise InvalidRequest(f"no figure is of the {kind} {brief(name)} and the rest; there are {', '.join(there)}")
    hint = (name not in sl.available() and did_you_mean(name, there)) or f"there are {', '.join(there)}"
    raise InvalidRequest(f"no figure is of the {kind} {brief(name)}; {hint}")


def _is_budget(figure: Figure, text: str) -> bool:
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        return figure.has_budget(float(number) / 100 if percent else float(number) if "." in number else int(number))
    except ValueError:
        return False
