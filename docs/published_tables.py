"""Tables of published figures, one source each, for docs/choose.md."""

from markdown_table import table

import seeless as sl
from seeless.eval.published import Figure, figures

MODEL = "LLaVA-1.5-7B"
BENCHMARKS = {"GQA": "GQA", "POPE": "POPE", "TextVQA": "TextVQA (text in pictures)"}
UNTOUCHED = "none"


def _of(source: str) -> list[Figure]:
    return [
        each
        for each in figures()
        if (each.source, each.model) == (source, MODEL)
        and each.benchmark in BENCHMARKS
        and not each.suspect
        and (each.strategy == UNTOUCHED or (each.tokens and each.strategy in sl.available()))
    ]


def published_table(source: str) -> str:
    """The figures of a source for methods that seeless has, the untouched model first; below, where they come from."""
    found = _of(source)
    budgets = sorted({each.tokens for each in found if each.strategy != UNTOUCHED and each.tokens}, reverse=True)
    whole = {each.benchmark: each.value for each in found if each.strategy == UNTOUCHED}
    columns = [(name, tokens) for name in BENCHMARKS for tokens in budgets]
    columns = [
        (n, t) for n, t in columns if n in whole and any((each.benchmark, each.tokens) == (n, t) for each in found)
    ]
    names = [f"{BENCHMARKS[name]}, {tokens}" for name, tokens in columns]
    rows = [["all tokens", *(f"{whole[name]:g}" for name, _ in columns)]]
    for method in sorted({each.strategy for each in found} - {UNTOUCHED}):
        own = {(each.benchmark, each.tokens): each.value for each in found if each.strategy == method}
        rows.append([f"`{method}`", *(f"{own[each]:g}" if each in own else "–" for each in columns)])
    settings = sorted({f"{each.benchmark}: {each.setting}" for each in found if each.setting})
    told = f"Source of every number above: {found[0].citation} (`{source}`)."
    return "\n".join([*table(["method", *names], rows), "", " ".join([told, *(f"{each}." for each in settings)])])
