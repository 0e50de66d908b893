"""Advice for people and for programs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from seeless.cli.bench import print_rows
from seeless.cli.beside import mark_of, print_sources
from seeless.cli.console import print_table, say

if TYPE_CHECKING:
    from seeless.advice.advising import About, Suited
    from seeless.advice.candidates import Candidate
    from seeless.advice.choosing import Chosen
    from seeless.advice.evidence import Ranking
    from seeless.bench.prompts import Workload
    from seeless.eval.published import Figure

LISTED = 8  # methods of a use


@dataclass(frozen=True)
class Advice:
    """All that is said about a model.

    Args:
        rounds: of which times are medians.
        made: command, versions, commit and machine.
    """

    about: "About"
    uses: "Sequence[Suited]"
    workload: "Workload"
    chosen: "Chosen"
    rounds: int
    made: dict[str, Any]

    def line(self, suited: "Suited", one: "Candidate") -> str:
        """What to paste."""
        return one.command(self.about.checkpoint or "MODEL") if suited.use.served else one.call

    def figures(self) -> "list[Figure]":
        """What is published for the methods that were measured, of this model or, failing that, of the nearest."""
        from seeless.advice.evidence import published_of

        for model, _ in self.about.with_figures():
            found = [each for one, _ in self.chosen.runs for each in published_of(model, one.name, one.share)]
            if any(not each.suspect for each in found):
                return found
        return []

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        chosen = self.chosen
        return {
            "model": self.about.name,
            "published_as": self.about.own,
            "uses": [self._use(suited) for suited in self.uses],
            "workload": asdict(self.workload),
            "measured": [chosen.whole, *({**row, "budget": one.fields} for one, row in chosen.runs)],
            "published": [each.to_dict() for each in self.figures()],
            "chosen": {
                "use": chosen.use.use.name,
                "latency": None if chosen.wish is None else asdict(chosen.wish),
                "method": None if chosen.best is None else chosen.best.name,
                "budget": None if chosen.best is None else chosen.best.fields,
                "line": None if chosen.best is None else self.line(chosen.use, chosen.best),
                "ranking": None if chosen.ranking is None else chosen.ranking.to_dict(),
                "reason": chosen.reason,
            },
            **self.made,
        }

    def _use(self, suited: "Suited") -> dict[str, Any]:
        return {
            "use": suited.use.name,
            "methods": [
                {"method": one.name, "budget": one.fields, "line": self.line(suited, one)} for one in suited.candidates
            ],
            "refused": suited.refused,
            "reasons": reasons(suited),
            "ranking": None if suited.ranking is None else suited.ranking.to_dict(),
        }


def print_advice(advice: Advice) -> None:
    """Uses, what was measured, what is published, and last the line to paste."""
    about, chosen = advice.about, advice.chosen
    tokens = f", {about.tokens} visual tokens per picture" if about.tokens else ""
    say(f"{about.name} · {about.description.family} ({about.description.model_type}){tokens}")
    for suited in advice.uses:
        say(f"\n{suited.use.title}")
        print_table(["", ""], _about_use(advice, suited))
    say(f"\nMeasured here, {_made(advice)}")
    rows = [{**row, "keep": _written(one)} for one, row in chosen.runs]
    print_rows([chosen.whole, *rows], [advice.workload])
    _print_published(advice)
    _print_chosen(advice)


def reasons(suited: "Suited") -> list[str]:
    """Why these methods, and why this budget."""
    return [*(need.reason for need in suited.use.needs), suited.use.why]


def _about_use(advice: Advice, suited: "Suited") -> list[list[str]]:
    names = [one.name for one in suited.candidates]
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    rows = [["methods", ", ".join(names[:LISTED]) + more if names else "none runs on this model"]]
    rows += [["because", " ".join(reasons(suited))]]
    if suited.ranking is not None:
        rows += [["order", _order(suited.ranking, suited.in_common)]]
    if suited.refused:
        listed = "; ".join(f"{name} ({reason})" for name, reason in _by_reason(suited.refused).items())
        rows += [["not", listed]]
    if names:
        rows += [["line", advice.line(suited, suited.candidates[0])]]
    return rows


def _by_reason(refused: dict[str, str]) -> dict[str, str]:
    """Names with the same reason together."""
    found: dict[str, list[str]] = {}
    for name, reason in refused.items():
        found.setdefault(reason, []).append(name)
    return {", ".join(names): reason for reason, names in found.items()}


def _order(ranking: "Ranking", in_common: str) -> str:
    placed = ", ".join(f"{each.method} {100 * each.kept:.1f} % ({each.budget})" for each in ranking.places)
    other = f", a model {in_common}, not this one" if in_common else ""
    return (
        f"{placed}: of the untouched model's scores (tokens kept), mean of {', '.join(ranking.benchmarks)}, on "
        f"{ranking.model}{other}; {ranking.source}: {ranking.citation}"
    )


def _written(one: "Candidate") -> str:
    return next(iter(map(str, one.fields.values())), "its own")


def _made(advice: Advice) -> str:
    made = advice.made
    versions = f"torch {made['versions']['torch']}, transformers {made['versions']['transformers']}"
    commit = f", commit {made['commit'][:12]}" if made["commit"] else ""
    return f"medians of {advice.rounds} rounds on {made['machine']}, {versions}{commit}:"


def _print_published(advice: Advice) -> None:
    from seeless.advice.evidence import is_score, untouched_of

    found, about = advice.figures(), advice.about
    if not found:
        say("\nNothing is published about these methods near these budgets, on no model.")
        return
    model = found[0].model
    if model == about.own:
        say(f"\nPublished by others for {model}, untouched in brackets; not measured here:\n")
    else:
        in_common = dict(about.with_figures())[model]
        say(
            f"\nNothing is published about these methods near these budgets for {about.name}. What follows is of "
            f"{model}, a model {in_common}, and says nothing of this one; untouched in brackets:\n"
        )
    rows = []
    for method, budget, source in dict.fromkeys((each.strategy, each.budget, each.source) for each in found):
        whole = untouched_of(model, source)
        own = [each for each in found if (each.strategy, each.budget, each.source) == (method, budget, source)]
        kept = [
            each.value / whole[each.benchmark, each.metric]
            for each in own
            if is_score(each) and whole.get((each.benchmark, each.metric))
        ]
        values = ", ".join(_value(each, whole.get((each.benchmark, each.metric))) for each in own)
        rows.append([method or "", budget, source, f"{100 * fmean(kept):.1f} %" if kept else "-", values])
    print_table(["method", "tokens", "source", "of untouched", "values"], rows)
    print_sources(found)


def _value(figure: "Figure", whole: float | None) -> str:
    return f"{figure.benchmark} {figure.value:g}{mark_of(figure)}" + ("" if whole is None else f" ({whole:g})")


def _print_chosen(advice: Advice) -> None:
    chosen = advice.chosen
    if chosen.best is None:
        if chosen.soon_enough:
            say(f"\nNo method is needed: {chosen.reason}.")
        return
    row = next(row for one, row in chosen.runs if one is chosen.best)
    faster = row["speed_up"]["first"]
    wish = f", with the largest budget that has {chosen.wish}" if chosen.wish else ""
    say(f"\n{chosen.best.name}{wish}: {chosen.use.use.title}.")
    if chosen.ranking is not None and any(place.method == chosen.best.name for place in chosen.ranking.places):
        say(f"First of those measured by {_order(chosen.ranking, chosen.in_common)}")
    elif chosen.ranking is None:
        say("No source compares two of those measured with the untouched model at these budgets.")
    saved = f"{100 * (1 - 1 / faster):.0f} % sooner" if faster > 1 else f"no sooner ({faster:.2f} times as fast)"
    say(f"Its first token is there {saved} here, in {1e3 * row['seconds']['first']['median']:.4g} ms.")
    say(f"\n{advice.line(chosen.use, chosen.best)}")
