"""The generated part of docs/methods.md: what every method says about itself."""

import re

from markdown_table import table

from seeless.cli.cards import Card, cards
from seeless.cli.facts import facts_of, missing_facts, remarks_of

TITLES = {"Original": "Original code", "Deviations": "Where seeless differs"}


def methods() -> list[Card]:
    """The methods of the package, every fact given."""
    own = [card for card in cards() if not card.guest]
    lacking = [f"{card.name}: {sentence}" for card in own for sentence in missing_facts(card.doc, card.paper)]
    assert not lacking, "; ".join(lacking)
    return own


def overview() -> list[str]:
    """One row a method."""
    rows = []
    for card in methods():
        facts = {name: text.replace("|", "\\|").rstrip(".") for name, text in facts_of(card.doc).items()}
        row = [
            f"[`{card.name}`](#{card.name})",
            card.stage,
            facts["Signal"],
            card.paper or "–",
            facts.get("Original", "–"),
        ]
        rows.append(row)
    return table(["method", "stage", "what it reads", "paper", "original code"], rows)


def defaults(card: Card) -> str:
    """Its own fields, and those whose default differs from that of all others."""
    own = [field for field in card.fields if not field.common]
    return ", ".join(f"`{f.name}` must be given" if f.required else f"`{f.name}={f.default!r}`" for f in own)


def entry(card: Card) -> list[str]:
    """One method."""
    facts = facts_of(card.doc)
    listed = {"Formula": facts.pop("Formula"), "Stage": card.stage, **facts}
    deviations = listed.pop("Deviations", None)
    listed["Defaults"] = defaults(card)
    if deviations is not None:
        listed["Deviations"] = deviations
    lines = [f"## {card.name}", "", card.summary, ""]
    for name, text in listed.items():
        title = TITLES.get(name, name)
        listing = text.startswith("- ")
        lines.append(f"- **{title}.** " + ("" if listing else text))
        lines += ["    " + line for line in re.split("\n", text)] if listing else []
    for remark in remarks_of(card.doc):
        lines += ["", remark]
    return [line.rstrip() for line in [*lines, ""]]


def methods_list() -> str:
    """The overview and all entries."""
    return "\n".join([*overview(), "", *(line for card in methods() for line in entry(card))]).rstrip()
