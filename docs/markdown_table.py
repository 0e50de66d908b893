"""Tables as Markdown."""

from collections.abc import Iterable


def table(heads: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Its lines: heads, rule, rows."""
    first, *others = [f"| {' | '.join(line)} |" for line in (heads, *rows)]
    return [first, "|---" * len(heads) + "|", *others]
