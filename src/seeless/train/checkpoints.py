"""Checkpoints of the Trainer: which of them were saved to their end, and what a full disk does to saving."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seeless.jsonl import NoJSON, decode
from seeless.outputs import FULL, UnwritableFile

NAME = re.compile(r"checkpoint-(\d+)")
STATE, WEIGHTS, INDEX = "trainer_state.json", "*.safetensors", "*.safetensors.index.json"
DEEPSPEED = "latest"  # names the folder that DeepSpeed saved to
PICKLED = (".pt", ".pth", ".bin")
WRITER = re.compile(r"I/O error: (.*?) \(os error|(inline_container|PytorchStreamWriter)")  # of safetensors, of torch


@contextmanager
def saving(output: Path) -> Iterator[None]:
    """Inside, what the Trainer raises when a disk is full becomes `UnwritableFile` about the folder it saves to."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            reason = error.strerror
        elif found := WRITER.search(str(error)):
            reason = found[1] or "the disk is full, or a file may not be that large"
        else:
            raise
        raise UnwritableFile(
            f"cannot write {output}: {reason}; make room, then go on from the newest whole checkpoint with --resume"
        ) from error


def newest_whole(output: Path) -> tuple[Path | None, dict[str, str]]:
    """The newest checkpoint in a folder that is whole, and what is wrong with each newer one, by its name."""
    numbers = {int(found[1]): each for each in output.glob("*") if (found := NAME.fullmatch(each.name))}
    flaws: dict[str, str] = {}
    for _, folder in sorted(numbers.items(), reverse=True):
        if not (wrong := flaw(folder)):
            return folder, flaws
        flaws[folder.name] = wrong
    return None, flaws


def flaw(checkpoint: Path) -> str:
    """What is wrong with a checkpoint whose saving was cut off; "" if it is whole.

    The Trainer saves weights, optimizer, schedule, random numbers, and at last its own state. Loading goes on without
    some of these in silence, so each must be there, and to its end.
    """
    try:
        step = decode((checkpoint / STATE).read_bytes(), numbers_only=False)["global_step"]
    except FileNotFoundError:
        return f"it has no {STATE}"
    except (OSError, NoJSON, KeyError, TypeError):
        return f"{STATE} cannot be read"
    if step != int(checkpoint.name.rpartition("-")[2]):
        return f"{STATE} is of step {step}"
    files = sorted(each for each in checkpoint.rglob("*") if each.is_file())
    names = {each.relative_to(checkpoint).parts[0] for each in files}
    deepspeed = DEEPSPEED in names
    for what, there in (
        ("weights", deepspeed or any(name.endswith(".safetensors") or "model_fsdp" in name for name in names)),
        ("optimizer", deepspeed or any("optimizer" in name for name in names)),
        ("scheduler.pt", "scheduler.pt" in names),
        ("rng_state", any(name.startswith("rng_state") for name in names)),
    ):
        if not there:
            return f"it has no {what}"
    cut = next((each.name for each in files if not _whole(each)), None)
    return f"{cut} is cut off" if cut else ""


def _whole(file: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        if file.match(WEIGHTS):
            with safe_open(file, "pt"):
                return True
        if file.match(INDEX):
            shards = decode(file.read_bytes())["weight_map"].values()
            return all((file.parent / shard).is_file() for shard in shards)
    except (OSError, SafetensorError, NoJSON, KeyError, TypeError, AttributeError):
        return False
    return file.suffix not in PICKLED or zipfile.is_zipfile(file)
