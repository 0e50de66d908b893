"""`seeless train`: fine-tune a model on LLaVA-format data, with all visual tokens or with fewer."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

import seeless as sl
from seeless.cli.catalogue import complete_name
from seeless.cli.console import notice, print_table, say
from seeless.cli.flags import as_flag, read_flags
from seeless.cli.options import Plugins
from seeless.named.checkpoints import TINY, load_config, load_trainable, resolve_name
from seeless.named.knobs import build_strategies
from seeless.named.plugins import load_plugins
from seeless.outputs import check_folder

if TYPE_CHECKING:
    from seeless.strategy import Recipe
    from seeless.train import Outcome, Record, Settings
    from seeless.train.settings import Part

DEFAULT_OUTPUT = Path("seeless-train")
TRIED = "pyramiddrop"
TRIED_SCENES, TRIED_STEPS, TRIED_BATCH, TRIED_LR = 256, 32, 8, 1e-3


def train(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(metavar="ID_OR_PATH", help="Checkpoint; the embedded model tiny unless told.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="LLaVA-format JSON or JSONL; else generated scenes, see above.")
    ] = None,
    image_folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the pictures are; the data's folder unless told.")
    ] = None,
    eval_data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More of it, for the loss at every checkpoint and at the end.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where everything goes; seeless-train, if that is free.")
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="See `seeless list`; none unless told.", autocompletion=complete_name),
    ] = None,
    plugin: Plugins = None,
    lora: Annotated[int | None, typer.Option(min=1, metavar="RANK", help="Train LoRA alone, of this rank.")] = None,
    freeze: Annotated[
        str, typer.Option(metavar="A,B", help="Parts to leave as they are: tower, projector, decoder; or none.")
    ] = "tower",
    epochs: Annotated[float | None, typer.Option(min=0, help="Passes over the data; 1 unless told.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps, instead of --epochs.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Records per process and forward; 1 unless told.")] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Forwards per optimizer step.")] = 1,
    lr: Annotated[float | None, typer.Option(min=0, help="Learning rate; 2e-5, with --lora 2e-4.")] = None,
    warmup: Annotated[float, typer.Option(min=0, help="Steps of warm-up, below 1 their share of all.")] = 0.03,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the data and of new weights.")] = 0,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Longest row in tokens, visual ones included; longer ones lose their end.")
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute activations again instead of keeping them.")
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16.")] = False,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints; none unless told.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the latest checkpoint in --output.")] = False,
    skip_bad_records: Annotated[
        bool, typer.Option("--skip-bad-records", help="Go on without records that cannot be trained on.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load pictures.")] = 0,
    deepspeed: Annotated[
        Path | None, typer.Option(metavar="FILE", help="DeepSpeed config, passed on to the Trainer.")
    ] = None,
    fsdp: Annotated[Path | None, typer.Option(metavar="FILE", help="FSDP config, passed on to the Trainer.")] = None,
) -> None:
    """Fine-tune a model on conversations about pictures, with all visual tokens or with fewer.

    Without --data: the embedded model tiny learns to answer in sentences, first with all visual tokens, then with fewer
    (pyramiddrop unless told), about a minute; prints loss and step time of both. The fields of a strategy are flags, as
    in `seeless run`: --strategy pyramiddrop --layer 8,16,24 --keep .5,.25,.125. Several processes: accelerate launch -m
    seeless.cli.main train ...
    """
    from seeless.train.processes import processes, rank
    from seeless.train.settings import Settings

    load_plugins(plugin or [])
    if epochs is not None and steps is not None:
        raise typer.BadParameter("--epochs and --steps exclude each other")
    if data is None and (model is not None or resume or processes() > 1):
        raise typer.BadParameter("--model, --resume and several processes need --data")
    tried = data is None
    label = strategy or (TRIED if tried else "none")
    try:
        chosen = _strategy(label, context.args)
        settings = Settings(
            output=output or _free(DEFAULT_OUTPUT),
            freeze=_parts(freeze),
            lora=lora,
            epochs=1.0 if epochs is None else epochs,
            steps=TRIED_STEPS if tried and epochs is None and steps is None else steps,
            batch=batch or (TRIED_BATCH if tried else 1),
            accumulate=accumulate,
            lr=TRIED_LR if tried and lr is None else lr,
            warmup=warmup,
            seed=seed,
            max_length=max_length,
            checkpointing=checkpointing,
            bf16=bf16,
            save_every=save_every,
            resume=resume,
            skip_bad_records=skip_bad_records,
            workers=workers,
            deepspeed=deepspeed,
            fsdp=fsdp,
        )
        name = resolve_name(model or TINY)
        _check(name, chosen, settings)
        if rank() == 0:
            check_folder(settings.output)
        if data is None:
            _try_out(name, label, chosen, settings)
            return
        processor, weights = load_trainable(name, half=bf16 and lora is not None)
        records, eval_records = _records(data, eval_data, image_folder, processor, settings)
    except sl.SeelessError as error:
        if rank() > 0:  # every process finds the same mistake; the first one says so
            raise SystemExit(error.exit_code) from error
        raise
    try:
        outcome = _finetune(weights, processor, records, settings, chosen, eval_records, name)
    except KeyboardInterrupt:
        if rank() == 0:
            notice(_how_to_go_on(settings.output))
        raise SystemExit(130) from None
    if rank() == 0:
        _print_outcomes({label: outcome}, len(records))
        say(f"\nthe model is in {outcome.folder}, every step in {settings.output / 'metrics.jsonl'}")


def _strategy(name: str, arguments: list[str]) -> "sl.Strategy | Recipe | None":
    flags = read_flags(arguments)
    if name == "none":
        if flags:
            raise sl.BudgetError(f"--{next(iter(flags))} is a strategy's field or no flag; name the --strategy")
        return None
    return build_strategies([name], flags, as_flag)[0]


def _parts(text: str) -> "tuple[Part, ...]":
    from seeless.train.settings import Part

    parts = get_args(Part)
    named = [part.strip() for part in text.split(",")] if text != "none" else []
    if unknown := [part for part in named if part not in parts]:
        raise typer.BadParameter(f"--freeze {unknown[0]}: possible are {', '.join(parts)} and none")
    return tuple(part for part in parts if part in named)


def _check(name: str, strategy: "sl.Strategy | Recipe | None", settings: "Settings") -> None:
    """Refuse before any weight is read."""
    from seeless import models
    from seeless.train.parts import check_extras

    check_extras(lora=settings.lora is not None, deepspeed=settings.deepspeed is not None)
    skeleton = models.skeleton(load_config(name))
    if strategy is not None:
        models.check_strategy(skeleton, strategy)


def _records(
    data: Path, eval_data: Path | None, image_folder: Path | None, processor: Any, settings: "Settings"
) -> "tuple[list[Record], list[Record]]":
    from seeless.train import BadRecordList, read_records
    from seeless.train.processes import rank
    from seeless.train.settings import BAD_RECORDS

    reserved = {token for kind in ("image", "video") if (token := getattr(processor, f"{kind}_token", None))}
    records, bad = read_records(data, image_folder, reserved)
    eval_records, more = ([], []) if eval_data is None else read_records(eval_data, image_folder, reserved)
    total = len(records) + len(eval_records) + len(bad) + len(more)
    BadRecordList(settings.output / BAD_RECORDS, settings.skip_bad_records).start(bad + more, total, rank() == 0)
    return records, eval_records


def _finetune(
    weights: Any,
    processor: Any,
    records: "list[Record]",
    settings: "Settings",
    strategy: "sl.Strategy | Recipe | None",
    eval_records: "list[Record]",
    name: str,
) -> "Outcome":
    from seeless.train import finetune

    about = {"command": shlex.join(["seeless", *sys.argv[1:]]), "model": name}
    return finetune(weights, processor, records, settings, strategy, eval_records, about)


def _how_to_go_on(output: Path) -> str:
    from seeless.train.checkpoints import newest_whole

    found, _ = newest_whole(output)
    if found is None:
        return "stopped; there is no checkpoint to go on from (--save-every)"
    return f"stopped; the same command with --resume goes on from {found}"


def _try_out(name: str, label: str, strategy: "sl.Strategy | Recipe | None", settings: "Settings") -> None:
    """The embedded model `tiny` on generated scenes, from the same start with and without reduction."""
    from dataclasses import replace

    from seeless.train import read_records, write_scenes

    say(f"writing {TRIED_SCENES} scenes to {settings.output / 'data'}")
    records, _ = read_records(write_scenes(settings.output / "data", TRIED_SCENES, settings.seed))
    outcomes = {}
    for own_label, each in {"none": None, label: strategy}.items():
        processor, weights = load_trainable(name, half=settings.bf16 and settings.lora is not None)
        own = replace(settings, output=settings.output / own_label.replace(":", "-"))
        outcomes[own_label] = _finetune(weights, processor, records, own, each, [], name)
    _print_outcomes(outcomes, len(records))
    say(f"\nmodels, metrics and data are in {settings.output}; yours: seeless train --model ID_OR_PATH --data FILE")


def _print_outcomes(outcomes: "dict[str, Outcome]", records: int) -> None:
    from seeless.train.settings import BAD_RECORDS

    rows = []
    for label, outcome in outcomes.items():
        found = outcome.to_dict()
        rows.append(
            [
                label,
                str(found["steps"]),
                "-" if found["first_loss"] is None else f"{found['first_loss']:.3f} -> {found['last_loss']:.3f}",
                "-" if found["eval_loss"] is None else f"{found['eval_loss']:.3f}",
                "-" if found["seconds_per_step"] is None else f"{found['seconds_per_step']:.2f} s",
                "-" if found["visual_tokens"] is None else f"{found['visual_tokens']:.0f}",
            ]
        )
    print_table(["strategy", "steps", "loss", "eval loss", "per step", "tokens/layer"], rows)
    cut = sum(outcome.cut for outcome in outcomes.values())
    bad = sum(outcome.bad for outcome in outcomes.values())
    notes = [f"{bad} could not be trained on, see {BAD_RECORDS}"] * bool(bad)
    notes += [f"{cut} rows lost their end to --max-length"] * bool(cut)
    say("; ".join([f"{records} records", *notes]))


def _free(folder: Path) -> Path:
    """This folder, or the first of `folder-2`, `folder-3`, ... that does not exist."""
    number, found = 1, folder
    while found.exists():
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found
