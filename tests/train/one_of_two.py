"""What each of two processes does in test_processes.py: train, and save the weights it ends up with."""

import os
import sys
from pathlib import Path

import torch

import seeless as sl
from seeless.train import Settings, finetune, read_records
from training_data import llava_processor, small_model


def train_one(data, output, freeze, checkpointing, seed, batch):
    """Five steps with PyramidDrop; the model and the outcome."""
    records, _ = read_records(Path(data))
    model = small_model(seed)
    settings = Settings(
        Path(output),
        freeze=tuple(part for part in freeze.split(",") if part),
        steps=5,
        batch=batch,
        lr=3e-3,
        checkpointing=checkpointing == "yes",
        save_every=5,
    )
    strategy = sl.PyramidDrop(layer=[1, 2, 3], keep=[0.5, 0.25, 0.125])
    return model, finetune(model, llava_processor(), records[2:], settings, strategy, eval_records=records[:2])


def main(data, *runs):
    """`runs` are three words each: a folder, what is frozen, whether activations are checkpointed."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    for output, freeze, checkpointing in zip(*[iter(runs)] * 3, strict=True):
        # different starts: training must make them one
        model, outcome = train_one(data, output, freeze, checkpointing, seed=rank, batch=1)
        torch.save({"weights": model.state_dict(), "lines": outcome.lines}, Path(output) / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
