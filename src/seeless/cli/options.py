"""Options that several commands have."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import seeless as sl
from seeless.budget import check_budget
from seeless.errors import brief, shortened
from seeless.named.knobs import parse_value

if TYPE_CHECKING:
    from seeless.eval.nominal import By

Plugins = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="Python file with strategies; may be repeated.")
]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda:1; a GPU if there is one.")]
Dtype = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="float32, bfloat16, float16, float64; what suits the device unless told."),
]

Arch = Annotated[
    str | None, typer.Option(metavar="NAME", help="Random weights in the shape of llava-1.5-7b, qwen3-vl-8b, ...")
]
Scale = Annotated[str, typer.Option(metavar="SHARE", help="Of the width of --arch; depth stays. 1/8, say.")]
Layers = Annotated[int | None, typer.Option(min=1, help="Of the decoder of --arch; its tower is cut as much.")]
Attention = Annotated[
    str, typer.Option("--attn-implementation", "--attention", metavar="NAME", help="sdpa, eager, flash_attention_2.")
]


def questions(limit: str | None) -> float | int | None:
    """What `--limit` says: how many questions per task, below 1 their share; None: all."""
    if limit is None:
        return None
    try:
        number = parse_value(limit, float | int)
    except ValueError:
        number = 0
    if number <= 0 or (number > 1 and number != int(number)):
        raise typer.BadParameter(f"--limit {shortened(limit)} is not possible; give a whole number, or a share below 1")
    return number if number < 1 else int(number)


def items(text: str) -> list[str]:
    """What a list with commas names, each once."""
    items = list(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))
    if not items:
        raise typer.BadParameter(f"{brief(text)} names nothing")
    return items


def asked_budgets(keep: str | None, average: str | None, usual: str) -> "tuple[By, list[float | int]]":
    """What `--keep` or `--average` asks for, and which of them; the usual ones of `--keep` without both."""
    if keep is not None and average is not None:
        raise typer.BadParameter("--keep and --average exclude each other")
    by: By = "keep" if average is None else "average"
    return by, [_budget(by, text) for text in items(average or keep or usual)]


def _budget(name: str, text: str) -> float | int:
    try:
        found = parse_value(text, float | int)
        check_budget(found)
    except (ValueError, sl.BudgetError) as error:
        raise typer.BadParameter(f"--{name} {shortened(text)}: give shares (0.25) or numbers of tokens (64)") from error
    return found
