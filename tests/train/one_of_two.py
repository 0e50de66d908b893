"""What each of two processes does in test_processes.py: train, and save the weights it ends up with."""

import os
import sys
from pathlib import Path

import torch

import seeless as sl
from seeless.train import Settings, finetune, read_records
from training_data import llava_processor, small_model


def main(data, output, freeze, checkpointing):
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    records, _ = read_records(Path(data))
    model = small_model(seed=rank)  # different starts: training must make them one
    parts = tuple(part for part in freeze.split(",") if part)
    settings = Settings(
        Path(output),
        freeze=parts,
        steps=5,
        batch=1,
        lr=3e-3,
        checkpointing=checkpointing == "yes",
        save_every=5,
    )
    strategy = sl.PyramidDrop(layer=[1, 2, 3], keep=[0.5, 0.25, 0.125])
    outcome = finetune(model, llava_processor(), records[2:], settings, strategy, eval_records=records[:2])
    torch.save({"weights": model.state_dict(), "lines": outcome.lines}, Path(output) / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
