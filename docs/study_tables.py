"""The tables of docs/analyze.md, from the studies of `reader` that `make studies` keeps in results/."""

import json
import re
from pathlib import Path
from typing import Any

from markdown_table import table

import seeless as sl
from seeless.analysis import STUDIES, KeptOverlap, Occlusion, Study

RESULTS = Path(__file__).parents[1] / "results"
ATTENTION, OVERLAP, OCCLUSION = (RESULTS / f"{name}-reader.json" for name in ("attention", "overlap", "occlusion"))


def attention_tables() -> str:
    """How attention leans and spreads, and how much of it goes to visual tokens."""
    told = json.loads(ATTENTION.read_text())
    return _page(told, [made() for made in STUDIES.values()])


def overlap_table() -> str:
    """What two methods keep in common, beside chance."""
    told = json.loads(OVERLAP.read_text())
    methods = {
        budget: {name: sl.get(name, keep=int(budget)) for pair in pairs for name in pair["methods"]}
        for budget, pairs in told["studies"][KeptOverlap.name].items()
    }
    return _page(told, [KeptOverlap(methods)])


def occlusion_table() -> str:
    """What answers lose with a region, and how much of it methods keep."""
    told = json.loads(OCCLUSION.read_text())
    return _page(told, [Occlusion(told["studies"][Occlusion.name]["region"])])


def _page(told: dict[str, Any], studies: list[Study]) -> str:
    tables = ["\n".join(table(*study.table(told["studies"][study.name]))) for study in studies]
    command = re.sub(r" --(output|format) \S+", "", told["command"])
    made = (
        f"{told['pictures']} held-out drawings; made by `{command}` at commit {told['commit'][:12]}, torch "
        f"{told['versions']['torch']}, transformers {told['versions']['transformers']}."
    )
    return "\n\n".join([*tables, made])
