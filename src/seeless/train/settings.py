"""What a training run can be told."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seeless.errors import BudgetError, brief

Part = Literal["tower", "projector", "decoder"]
BAD_RECORDS = "bad_records.jsonl"  # in the output
SEEDS = 2**32  # NumPy takes no larger ones
LEARNING_RATE, LORA_LEARNING_RATE = 2e-5, 2e-4  # LLaVA-1.5's, full and LoRA


@dataclass(frozen=True)
class Settings:
    """How to train.

    Args:
        output: folder for everything the run writes.
        freeze: parts whose weights stay as they are.
        lora: rank of LoRA on the linear layers of the other parts; None trains all of their weights.
        epochs: passes over the data; `steps`, where given, says how many optimizer steps instead.
        batch: records per process and forward; accumulate: forwards per optimizer step.
        lr: highest learning rate, after `warmup` (a share of all steps, or their number) and before a cosine down to
            zero; None: 2e-5, with LoRA 2e-4.
        max_length: tokens of a row at most, visual ones included; None: no limit.
        checkpointing: compute activations again in the backward pass instead of keeping them.
        bf16: autocast to bfloat16; the weights that are trained stay as they were given.
        save_every: steps between checkpoints; None: only the model at the end.
        resume: go on from the latest checkpoint in `output`.
        skip_bad_records: go on without records that cannot be trained on; they are listed all the same.
        workers: processes that load pictures beside this one.
        deepspeed: a file with a DeepSpeed config, passed on to the Trainer.
        fsdp: a file with an FSDP config, passed on to the Trainer.

    Raises:
        BudgetError: a learning rate, warm-up or number of epochs that is negative or no number, or a seed too large.
    """

    output: Path
    freeze: tuple[Part, ...] = ("tower",)
    lora: int | None = None
    epochs: float = 1.0
    steps: int | None = None
    batch: int = 1
    accumulate: int = 1
    lr: float | None = None
    warmup: float = 0.03
    seed: int = 0
    max_length: int | None = None
    checkpointing: bool = False
    bf16: bool = False
    save_every: int | None = None
    resume: bool = False
    skip_bad_records: bool = False
    workers: int = 0
    deepspeed: Path | None = None
    fsdp: Path | None = None

    def __post_init__(self) -> None:
        for name in ("lr", "warmup", "epochs"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise BudgetError(f"{name}={value} is not possible; it takes a number from 0 on")
        if not 0 <= self.seed < SEEDS:
            raise BudgetError(f"seed={brief(self.seed)} is not possible; it takes a whole number from 0 to {SEEDS - 1}")

    @property
    def learning_rate(self) -> float:
        """`lr`, or its default."""
        if self.lr is not None:
            return self.lr
        return LEARNING_RATE if self.lora is None else LORA_LEARNING_RATE
