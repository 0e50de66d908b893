"""Measured values and published ones as a table, with what is known of the sources below it."""

from collections.abc import Iterable, Sequence

from seeless.cli.console import print_table, say
from seeless.eval.beside import Comparison
from seeless.eval.published import Figure

SUSPECT, OTHER_SETTING = " suspect", " other setting"


def print_compared(rows: Sequence[tuple[list[str], Comparison]], columns: list[str], whole: bool = True) -> None:
    """One line per measured value; nothing where there is no figure.

    Args:
        rows: what a line begins with, under `columns`, and what it is about.
        whole: whether all questions were asked; a part of them is no ground for a verdict.
    """
    if not rows:
        return
    lines = [
        [
            *head,
            found.task,
            found.metric,
            f"{found.measured:.5g}",
            values_in_short(found.figures),
            verdict(found) if whole else "part of the questions",
            ", ".join(dict.fromkeys(figure.source for figure in found.figures)),
        ]
        for head, found in rows
    ]
    say("\nPublished by others for this model, budget and benchmark:\n")
    print_table([*columns, "task", "metric", "measured", "published", "apart", "sources"], lines)
    print_sources(figure for _, found in rows for figure in found.figures)


def values_in_short(figures: Iterable[Figure]) -> str:
    """The values that are trusted, as a range, and each of the others with its mark.

    >>> from seeless.eval.published import figures
    >>> asked = dict(strategy="fastv", model="LLaVA-1.5-7B", tokens=64, task="pope")
    >>> values_in_short(each for each in figures() if all(getattr(each, n) == v for n, v in asked.items()))
    '35.5 to 48, 59.6 suspect'
    """
    found = list(figures)
    trusted = sorted({figure.value for figure in found if figure.trusted})
    ends = [f"{value:.5g}" for value in dict.fromkeys((trusted[0], trusted[-1]))] if trusted else []
    others = [f"{figure.value:.5g}{mark_of(figure)}" for figure in found if not figure.trusted]
    return ", ".join([*([" to ".join(ends)] if ends else []), *dict.fromkeys(others)])


def mark_of(figure: Figure) -> str:
    """What stands behind a value that is not trusted."""
    return SUSPECT if figure.suspect else OTHER_SETTING if figure.setting else ""


def verdict(found: Comparison) -> str:
    """Whether the measured value is among the trusted ones, or by how much it is above or below."""
    if found.apart is None:
        return "-"
    return "within" if found.apart == 0 else f"{found.apart:+.4g}"


def print_sources(figures: Iterable[Figure]) -> None:
    """Every source with its citation, and what speaks against figures of it, with their benchmarks."""
    shown: dict[str, dict[str, dict[str, None]]] = {}
    for figure in figures:
        notes = shown.setdefault(f"{figure.source}: {figure.citation}", {})
        for kind, text in (("suspect", figure.suspect), ("setting", figure.setting)):
            if text:
                notes.setdefault(f"{kind}, {text}", {})[figure.benchmark] = None
    say()
    for citation, notes in shown.items():
        say("; ".join([citation, *(f"{note} ({', '.join(about)})" for note, about in notes.items())]))
