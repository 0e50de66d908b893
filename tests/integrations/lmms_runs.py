"""Runs of lmms-eval: in this process without its own tasks, and by its command."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lmms_eval import evaluator
from lmms_eval.tasks import TaskManager

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """What a run left: `results` as in its file, and per task the responses by document."""

    results: dict
    answers: dict[str, dict[int, list]]


def run_here(model, folder: Path, tasks: list[str], **options) -> Run:
    """`simple_evaluate` on tasks of a folder; `model` is a model id or a ready model."""
    name = model if isinstance(model, str) else "seeless"
    manager = TaskManager("ERROR", include_path=[str(folder)], include_defaults=False, model_name=name)
    options = {"log_samples": True, "bootstrap_iters": 0, "batch_size": 1, **options}
    results = evaluator.simple_evaluate(model=model, tasks=tasks, task_manager=manager, **options)
    return Run(results, {task: _by_document(results["samples"][task]) for task in tasks})


def _by_document(samples: list[dict]) -> dict[int, list]:
    return {sample["doc_id"]: sample["filtered_resps"] for sample in samples}


def environment(*folders: Path | str) -> dict[str, str]:
    """Of a subprocess: this checkout's code, no network, one thread, more folders to import from."""
    paths = [str(ROOT / "src"), str(ROOT / "tests"), str(Path(__file__).parent), *map(str, folders)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run_command(output: Path, *arguments, processes: int = 1, env: dict[str, str] | None = None) -> Run:
    """`python -m lmms_eval ... --output_path OUTPUT`, in several processes if told; fails if it leaves no results."""
    launch = [] if processes == 1 else ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    command = [sys.executable, "-m", *launch, "lmms_eval", *map(str, arguments), "--output_path", str(output)]
    done = subprocess.run(
        [*command, "--log_samples"], env=env or environment(), capture_output=True, text=True, check=False
    )
    files = list(output.rglob("*_results.json"))
    assert len(files) == 1, done.stdout[-2000:] + done.stderr[-4000:]
    answers = {}
    for file in output.rglob("*_samples_*.jsonl"):
        samples = [json.loads(line) for line in file.read_text().splitlines()]
        answers[file.stem.split("_samples_")[1]] = _by_document(samples)
    return Run(json.loads(files[0].read_text()), answers)
