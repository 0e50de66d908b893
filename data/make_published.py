"""Make the table of published figures that ships with the package.

    python data/make_published.py            # rewrite src/seeless/eval/published.parquet
    python data/make_published.py --check    # exit 1 if it is stale

Figures are in published.csv as their sources print them, sources in published_sources.csv, and what methods, models and
benchmarks are called in seeless in published_names.json. README.md says where they come from. Needs pyarrow.
"""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
PARQUET = HERE.parent / "src" / "seeless" / "eval" / "published.parquet"
UNTOUCHED = "none"
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("method", "model", "benchmark", "budget", "metric")),
        ("value", pa.float64()),
        *((name, pa.string()) for name in ("source", "citation", "setting", "suspect")),
        *((name, pa.string()) for name in ("strategy", "checkpoint", "task", "task_metric")),
        ("scale", pa.float64()),
        *((name, pa.int32()) for name in ("tokens", "of", "crops")),
        ("share", pa.float64()),
    ]
)


def read_csv(name: str) -> list[dict[str, str]]:
    """The rows of a file beside this one."""
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tokens_and_share(budget: str) -> tuple[int | None, float | None]:
    """What a printed budget says, in tokens or as a share of them; neither where it says something else.

    >>> [tokens_and_share(text) for text in ("128", "64x32", "11.1%", "56 (ratio 0.098)", "TFLOP 15.69%", "variable")]
    [(128, None), (2048, None), (None, 0.111), (56, None), (None, None), (None, None)]
    """
    if found := re.fullmatch(r"(\d+)(?:x(\d+))?(?: \(.*\)| from layer \d+)?", budget):
        return int(found[1]) * int(found[2] or 1), None
    if found := re.fullmatch(r"([\d.]+)%(?: \(.*\))?", budget):
        return None, round(float(found[1]) / 100, 6)
    return None, None


def budget_of(row: dict[str, str], strategy: str | None, of: int | None) -> dict[str, Any]:
    """Tokens kept and their share, as far as the budget and the model's number of tokens give them."""
    if strategy == UNTOUCHED:
        return {"tokens": of, "share": 1.0}
    tokens, share = tokens_and_share(row["budget"])
    if tokens is None and share is not None and of is not None:
        tokens = round(share * of)
    elif tokens is not None and of is not None:
        share = tokens / of
    assert share is None or 0 <= share < 1, row
    return {"tokens": tokens, "share": share}


def task_of(row: dict[str, str], names: dict[str, Any]) -> dict[str, Any]:
    """The task of lmms-eval and its metric; none where there is a reason."""
    for entry in names["benchmarks"]:
        fits = entry["benchmark"] == row["benchmark"] and entry.get("metric", row["metric"]) == row["metric"]
        if fits and row["source"] not in entry.get("except", ()):
            return entry
    assert row["benchmark"] in names["benchmarks_without_a_task"], f"{row['benchmark']} is in no list of names"
    return {}


def records() -> list[dict[str, Any]]:
    """All figures with their sources and own names."""
    names = json.loads((HERE / "published_names.json").read_text(encoding="utf-8"))
    sources = {source["source"]: source for source in read_csv("published_sources.csv")}
    found = []
    for row in read_csv("published.csv"):
        assert row["method"] in {**names["methods"], **names["methods_without_a_name"]}, row
        strategy, model = names["methods"].get(row["method"]), names["models"][row["model"]]
        source, task = sources[row["source"]], task_of(row, names)
        resized = not row["budget"].endswith("%")  # a number of tokens is a budget where pictures have one size
        size = model.get("tokens") if resized or "setting" not in model else None
        own_setting = model.get("setting", "") if resized else ""
        settings = [text for text in (source["setting"], own_setting, task.get("setting", "")) if text]
        found.append(
            {
                **row,
                "value": float(row["value"]),
                "citation": source["citation"],
                "setting": "; ".join(settings),
                "suspect": "; ".join(text for text in (source["suspect"], row["suspect"]) if text),
                "strategy": strategy,
                "checkpoint": model.get("checkpoint"),
                **{name: task.get(name) for name in ("task", "task_metric", "scale")},
                "of": size,
                "crops": model.get("crops", 1),
                **budget_of(row, strategy, size),
            }
        )
    return found


def main() -> None:
    table = pa.Table.from_pylist(records(), SCHEMA)
    fresh = PARQUET.is_file() and pq.read_table(PARQUET).equals(table)
    if "--check" in sys.argv:
        sys.exit(0 if fresh else f"{PARQUET.name} is stale: run python data/make_published.py")
    if not fresh:  # another release of pyarrow writes other bytes
        pq.write_table(table, PARQUET, compression="zstd")
    print(f"{PARQUET}: {table.num_rows} figures of {len(set(table['source'].to_pylist()))} sources")


if __name__ == "__main__":
    main()
