"""What an output folder holds of a run: nothing yet, one to go on with, or another one."""

import sys
from pathlib import Path
from typing import Any

from seeless.errors import SeelessError, brief
from seeless.jsonl import NoJSON, decode
from seeless.train.checkpoints import newest_whole
from seeless.train.processes import rank
from seeless.train.settings import Settings

RUN, METRICS, MODEL = "run.json", "metrics.jsonl", "model"
# Settings with which the steps that are left are those of a run that was never interrupted.
FIXED = ("freeze", "lora", "batch", "accumulate", "lr", "warmup", "seed", "max_length", "bf16")


def checkpoint_of(settings: Settings) -> str | None:
    """Where to go on from; None at the beginning, which is also where a run got to that failed before its first step.

    Raises:
        SeelessError: the folder holds a run that is not to be resumed, none that could be, or one with all its steps.
    """
    output = settings.output
    found, flaws = newest_whole(output)
    if not settings.resume:
        if (output / RUN).exists() and (found or flaws or _has_steps(output)):
            raise SeelessError(f"{output} holds a run already; {_ways_on(found)}")
        return None
    broken = "; ".join(f"{name} was not saved to its end ({flaw})" for name, flaw in flaws.items())
    if found is None and broken:
        raise SeelessError(
            f"{output} has no whole checkpoint: {broken}; start again in another folder, without --resume"
        )
    if found is None:
        where = "start again in another folder, without" if _has_steps(output) else "leave out"
        raise SeelessError(f"{output} has no checkpoint to go on from; {where} --resume")
    done = int(found.name.rpartition("-")[2])
    if settings.steps is not None and done >= settings.steps:
        raise SeelessError(
            f"{found} has {done} steps, and --steps {settings.steps} asks for no more; its model is there, or give more"
        )
    if broken and rank() == 0:
        print(f"{broken}; going on from {found.name}", file=sys.stderr)
    return str(found)


def check_same(settings: Settings, told: dict[str, Any]) -> None:
    """Refuse to go on with a run that was started otherwise.

    Args:
        told: what `run.json` is to say of this run.

    Raises:
        SeelessError: the strategy or a setting is another one; the message names it.
    """
    if not settings.resume:
        return
    try:
        before = decode((settings.output / RUN).read_bytes())
        given = {"strategy": before["strategy"]} | before["settings"]
    except (OSError, NoJSON, KeyError, TypeError):
        return  # nothing is known of how it was started
    now = {"strategy": told["strategy"]} | told["settings"]
    for name in ("strategy", *FIXED):
        if name in given and _plain(given[name]) != _plain(now[name]):
            raise SeelessError(
                f"{settings.output} was started with {name} {brief(given[name])}, not {brief(now[name])}; go on with "
                "the same, or start in another folder, without --resume"
            )


def _ways_on(checkpoint: Path | None) -> str:
    return ("go on with it (--resume), or " if checkpoint is not None else "") + "write to another folder"


def _has_steps(output: Path) -> bool:
    metrics = output / METRICS
    return (output / MODEL).exists() or (metrics.is_file() and metrics.stat().st_size > 0)


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
