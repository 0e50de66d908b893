"""What a training run writes down while it runs: one JSON line per step."""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from seeless.api import Handle
from seeless.jsonl import append_lines, encode, read_lines
from seeless.outputs import replace_file
from seeless.report import Report
from seeless.train.chat import IGNORED

EVALUATION = {"step", "eval_loss"}
STEP = {"step", "loss", "lr", "grad_norm", "seconds", "tokens", "visual_tokens", "peak_memory"}


class Metrics(TrainerCallback):
    """Appends to a JSONL file, one object per optimizer step; after an evaluation, one with its `eval_loss`.

    Of a step: `step`, `loss`, `lr`, `grad_norm`, `seconds` (forward, backward and optimizer, without loading data),
    `tokens` (of all processes since the start, blank pictures included, padding left out), `visual_tokens` (per decoder
    layer and row with a picture, mean over this process' rows; None without pictures) and `peak_memory` in bytes: of
    this process' GPU since the start of training, else of this process since it began. Only the first of several
    processes writes.

    Args:
        file: the JSONL file; of a run that is resumed, steps beyond the checkpoint are taken out of it.
        model: what is trained, as it is before it is wrapped for several processes.
        handle: the handle on it, None without reduction.
        image_id: the placeholder of visual tokens.
    """

    def __init__(self, file: Path, model: nn.Module, handle: Handle | None, image_id: int) -> None:
        self.file, self.handle, self.image_id = file, handle, image_id
        self.lines: list[dict[str, Any]] = []
        self._visual: list[float] = []
        self._seconds, self._started = 0.0, 0.0
        self._report: Report | None = None
        self._hook = model.register_forward_hook(self._count, with_kwargs=True)

    def close(self) -> None:
        """Take the hook off the model."""
        self._hook.remove()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if state.is_world_process_zero:
            before = [line for _, line in read_lines(self.file)] if state.global_step else []
            self.lines = [line for line in before if _is_line(line) and line["step"] <= state.global_step]
            replace_file(self.file, b"".join(encode(line) + b"\n" for line in self.lines))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seconds = _now() - self._started

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        if "loss" in logs:
            line = {
                "step": state.global_step,
                "loss": logs["loss"],
                "lr": logs["learning_rate"],
                "grad_norm": logs.get("grad_norm"),
                "seconds": self._seconds,
                "tokens": state.num_input_tokens_seen,
                "visual_tokens": sum(self._visual) / len(self._visual) if self._visual else None,
                "peak_memory": peak_memory(),
            }
            self._visual.clear()
        elif "eval_loss" in logs:
            line = {"step": state.global_step, "eval_loss": logs["eval_loss"]}
        else:
            return
        self.lines.append(line)
        append_lines(self.file, line)

    def _count(self, model: nn.Module, args: tuple, inputs: dict[str, Any], output: Any) -> None:
        """Visual tokens per layer of the rows that are trained on."""
        if not model.training:
            return
        visual = (inputs["input_ids"] == self.image_id).sum(1)
        rows = ((inputs["labels"] != IGNORED).any(1) & (visual > 0)).nonzero()[:, 0].tolist()
        report = self.handle.reports[-1] if self.handle is not None and self.handle.reports else None
        fresh, self._report = report is not self._report, report
        for row in rows:
            if report is not None and fresh:
                self._visual.append(sum(layer[row] for layer in report.visual) / len(report.visual))
            else:
                self._visual.append(float(visual[row]))


def _is_line(value: Any) -> bool:
    """Whether this is a line of such a file, which a kill may have cut off and people may have edited."""
    whole = isinstance(value, dict) and (value.keys() >= STEP or value.keys() >= EVALUATION)
    return whole and isinstance(value["step"], int)


def peak_memory() -> int | None:
    """Bytes: of this process' GPU, or of this process where there is none; None where the system does not say."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
