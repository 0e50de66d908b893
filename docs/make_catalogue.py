"""Write src/seeless/cli/catalogue.json: what `seeless list` shows of the strategies without importing them."""

import json

from seeless.cli.cards import cards
from seeless.cli.catalogue import CATALOGUE


def catalogue() -> str:
    """One card a line."""
    return "[\n" + ",\n".join(json.dumps(card.to_dict(), ensure_ascii=False) for card in cards()) + "\n]\n"


if __name__ == "__main__":
    CATALOGUE.write_text(catalogue(), encoding="utf-8")
