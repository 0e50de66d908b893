"""Fine-tune a vision-language model with the Hugging Face Trainer, with or without reduction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import nn

from seeless.api import apply, resolved
from seeless.errors import SeelessError
from seeless.jsonl import encode
from seeless.outputs import claimed_folder, replace_file
from seeless.provenance import provenance
from seeless.strategy import Recipe, Strategy
from seeless.train.bad import BadRecordList
from seeless.train.batches import Batches
from seeless.train.checkpoints import saving
from seeless.train.errors import BadRecords
from seeless.train.parts import check_extras, choose_weights
from seeless.train.processes import rank
from seeless.train.records import Record
from seeless.train.resuming import METRICS, MODEL, RUN, check_same, checkpoint_of
from seeless.train.settings import BAD_RECORDS, Settings

CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class Outcome:
    """What came of a run, on the first of several processes.

    Args:
        folder: of the trained model (or LoRA adapter) and its processor.
        lines: of `metrics.jsonl`.
        cut: rows that lost their end to `max_length`, over all processes.
        bad: records that could not be trained on; `bad_records.jsonl` lists them.
    """

    folder: Path
    lines: list[dict[str, Any]]
    cut: int
    bad: int

    def to_dict(self) -> dict[str, Any]:
        """First and last loss (means of a tenth of the steps), median seconds per step, mean visual tokens per layer,
        memory and the latest evaluation, None where there is nothing to tell."""
        steps = [line for line in self.lines if "loss" in line]
        evaluations = [line["eval_loss"] for line in self.lines if "eval_loss" in line]
        tenth = max(1, len(steps) // 10)
        visual = [line["visual_tokens"] for line in steps if line["visual_tokens"] is not None]
        return {
            "steps": len(steps),
            "first_loss": fmean(line["loss"] for line in steps[:tenth]) if steps else None,
            "last_loss": fmean(line["loss"] for line in steps[-tenth:]) if steps else None,
            "eval_loss": evaluations[-1] if evaluations else None,
            "seconds_per_step": median(line["seconds"] for line in steps) if steps else None,
            "visual_tokens": fmean(visual) if visual else None,
            "peak_memory": steps[-1]["peak_memory"] if steps else None,
            "rows_cut": self.cut,
            "bad_records": self.bad,
        }


def finetune(
    model: nn.Module,
    processor: Any,
    records: Sequence[Record],
    settings: Settings,
    strategy: Strategy | Recipe | None = None,
    eval_records: Sequence[Record] = (),
    about: dict[str, Any] | None = None,
) -> Outcome:
    """Train a model on records, in this process or, under `accelerate launch`, in several.

    `settings.output` gets `model/` (what was trained, with its processor), `metrics.jsonl` (see `Metrics`), `run.json`
    (settings, versions, commit, outcome), `checkpoint-N/` and, if there are any, `bad_records.jsonl`. The handle is on
    the model while it trains and is evaluated, and is taken off before this returns.

    Several processes each see their own share of the records, average gradients (DDP), and count every answer token
    once, wherever it is. None waits in vain: with the tower frozen every weight takes part in every step, since a batch
    without pictures gets a blank one (see `Batches`); with the tower trained, DDP is told that the layers behind the
    features take no part.

    Args:
        model: as `sl.apply` takes it, not yet wrapped.
        strategy: what reduces, as `sl.apply` takes it, one of `seeless.vtr` included; None for no reduction.
        records: from `read_records`, to train on.
        eval_records: from `read_records`, for an evaluation with every checkpoint and at the end.
        about: anything else for `run.json`.

    Raises:
        BadRecords: a record that turns out bad, unless such records are to be skipped.
        UnwritableFile: the output cannot be written, or no longer. FileInUse: another run writes to it.
        MissingExtra: accelerate, or a package the settings ask for, is not installed.
        SeelessError: there is nothing to resume, or a run that was started otherwise, several GPUs in one process, or
            whatever `sl.apply` refuses.
    """
    check_extras(lora=settings.lora is not None, deepspeed=settings.deepspeed is not None)
    with claimed_folder(settings.output) if rank() == 0 else nullcontext(), saving(settings.output), _from_workers():
        return _finetune(model, processor, records, settings, strategy, eval_records, about or {})


def _finetune(
    model: nn.Module,
    processor: Any,
    records: Sequence[Record],
    settings: Settings,
    strategy: Strategy | Recipe | None,
    eval_records: Sequence[Record],
    about: dict[str, Any],
) -> Outcome:
    from transformers import PrinterCallback, Trainer, set_seed

    from seeless.train.metrics import Metrics
    from seeless.train.progress import Bar

    resumed = checkpoint_of(settings)
    if resumed is not None and settings.lora is None:
        _load_weights(model, Path(resumed))
    set_seed(settings.seed)  # the same LoRA weights in every process, and on every run
    trained = choose_weights(model, settings.freeze, settings.lora)
    args = _arguments(settings, evaluate=bool(eval_records))
    bad = BadRecordList(settings.output / BAD_RECORDS, settings.skip_bad_records)
    several = args.world_size > 1
    pictures = any(record.images for record in (*records, *eval_records))
    collate = Batches(processor, bad, settings.max_length, always_a_picture=several and pictures)
    chosen = None if strategy is None else resolved(strategy, trained)
    handle = None if chosen is None else apply(trained, chosen)
    metrics, bar = Metrics(settings.output / METRICS, trained, handle, collate.image_id), Bar()
    try:
        with _config_kept(trained):
            trainer = Trainer(
                model=trained,
                args=args,
                train_dataset=Places(records),  # type: ignore[arg-type]
                eval_dataset=Places(eval_records) if eval_records else None,  # type: ignore[arg-type]
                data_collator=collate,
                processing_class=processor,
                callbacks=[metrics, bar],
            )
            trainer.remove_callback(PrinterCallback)
            first = trainer.is_world_process_zero()
            weights = {
                "weights": sum(p.numel() for p in trained.parameters()),
                "weights_trained": sum(p.numel() for p in trained.parameters() if p.requires_grad),
            }
            told = {**about, **provenance(), "processes": args.world_size, **weights}
            told |= {"strategy": None if chosen is None else chosen.to_dict(), "settings": _plain(settings)}
            told |= {"records": len(records), "eval_records": len(eval_records)}
            if first:
                check_same(settings, told)
                _write(settings.output / RUN, told)
            trainer.train(resume_from_checkpoint=resumed)
            if eval_records and settings.save_every is None:  # else the last checkpoint brought it
                trainer.evaluate()
            cut = int(trainer.accelerator.reduce(torch.tensor(collate.cut, device=args.device)).item())
        trainer.save_model(str(settings.output / MODEL))
    finally:
        bar.stop()
        metrics.close()
        if handle is not None:
            handle.remove()
        model.eval()
    outcome = Outcome(settings.output / MODEL, metrics.lines, cut, bad.count)
    if first:
        _write(settings.output / RUN, {**told, "outcome": outcome.to_dict()})
    return outcome


class Places(Sequence):
    """Records as a data set: each item is all of them and the place of one, so that the next can stand in for it."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, number: Any) -> Any:
        return self.records, number


def _arguments(settings: Settings, evaluate: bool) -> Any:
    """The Trainer's arguments; with them comes the group of processes.

    Raises:
        SeelessError: this one process has several GPUs, or FSDP none.
    """
    from transformers import TrainingArguments

    gpu = torch.cuda.is_available()
    if settings.fsdp is not None and not gpu:
        raise SeelessError("FSDP needs GPUs (accelerate passes over it without a word elsewhere); leave --fsdp out")
    names = {field.name for field in fields(TrainingArguments)}
    recompute = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    varying: dict[str, Any] = {recompute: settings.checkpointing, f"{recompute}_kwargs": {"use_reentrant": False}}
    if settings.fsdp is not None:
        varying |= {"fsdp": True, "fsdp_config": str(settings.fsdp)}
    saving = "no" if settings.save_every is None else "steps"
    args = TrainingArguments(
        output_dir=str(settings.output),
        per_device_train_batch_size=settings.batch,
        per_device_eval_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        num_train_epochs=settings.epochs,
        max_steps=settings.steps or -1,
        seed=settings.seed,
        bf16=settings.bf16,
        save_strategy=saving,
        save_steps=settings.save_every or 1,
        save_total_limit=CHECKPOINTS_KEPT,
        eval_strategy=saving if evaluate else "no",
        eval_steps=settings.save_every,
        prediction_loss_only=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        dataloader_num_workers=settings.workers,
        dataloader_pin_memory=gpu,
        ddp_find_unused_parameters="tower" not in settings.freeze,
        use_cpu=not gpu,
        deepspeed=None if settings.deepspeed is None else str(settings.deepspeed),
        **varying,
    )
    if args.n_gpu > 1:
        raise SeelessError(
            f"{args.n_gpu} GPUs in one process; start one process for each "
            "(accelerate launch -m seeless.cli.main train ...), or show it one alone (CUDA_VISIBLE_DEVICES=0)"
        )
    return args


def _load_weights(model: Any, checkpoint: Path) -> None:
    """Load the weights of a checkpoint that was saved whole.

    The Trainer's own loading goes by the names in the file. Those are the names of the original release where
    `transformers` has renamed modules since (LLaVA's, say), so it finds nothing and goes on from the weights it has;
    `from_pretrained` knows both. Sharded checkpoints (FSDP, DeepSpeed) keep the model's own names.
    """
    if not any(checkpoint.glob("model*.safetensors")):
        return
    found, loading = type(model).from_pretrained(checkpoint, dtype=model.dtype, output_loading_info=True)
    if missing := sorted(loading["missing_keys"]):
        raise SeelessError(f"{checkpoint} lacks {len(missing)} weights, {missing[0]} for one; resume from another")
    model.load_state_dict(found.state_dict())


@contextmanager
def _from_workers() -> Iterator[None]:
    """Inside, an error of a process that loads data comes as it was raised, without that process' traceback in it."""
    try:
        yield
    except BadRecords as error:
        if "DataLoader worker" not in str(error):
            raise
        raise BadRecords(str(error).rpartition(f"{BadRecords.__name__}: ")[2]) from error


@contextmanager
def _config_kept(model: nn.Module) -> Iterator[None]:
    """The Trainer turns `use_cache` off for good; turn it back."""
    config: Any = model.config
    before = vars(config).get("use_cache")
    try:
        yield
    finally:
        if before is None:
            vars(config).pop("use_cache", None)
        else:
            config.use_cache = before


def _plain(settings: Settings) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(settings).items()}


def _write(file: Path, data: dict[str, Any]) -> None:
    replace_file(file, encode(data, indent=2) + b"\n")
