"""Run lmms-eval for `seeless eval`: what was asked, the check, the command, the table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seeless as sl
from seeless import models
from seeless.cli.beside import print_compared
from seeless.cli.cards import card_of
from seeless.cli.console import notice, print_json, print_table, say
from seeless.cli.flags import as_flag, read_flags
from seeless.errors import one_line
from seeless.eval.beside import Comparison, compare, matching
from seeless.eval.budgets import check_count, show_one_picture
from seeless.eval.command import Evaluation
from seeless.eval.errors import FailedEvaluation, InvalidRequest
from seeless.eval.launch import launch, reason
from seeless.eval.outcome import Row, read_results, results_in, rows
from seeless.eval.published import NEEDED, can_read
from seeless.eval.reductions import BASELINE, BUDGET, Reduction, guest, method_params, methods, native
from seeless.eval.targets import SHORT, Target, target
from seeless.eval.tasknames import check_cache, check_folders, check_tasks, leaves, lmms_eval_folder, task_names
from seeless.eval.tasks import OWN, SHORT_NAMES, full_names, tasks_path
from seeless.fields import takes
from seeless.named.checkpoints import load_config, resolve_name
from seeless.named.strategies import GUEST
from seeless.outputs import claimed_folder
from seeless.vtr import VTRConfig

LOG = "seeless-eval.log"
RESULTS_FOLDER = Path("eval_results")
TINY_BATCH = 16


@dataclass(frozen=True)
class Run:
    """What every evaluation is asked, whatever it evaluates.

    Args:
        budget: those of `keep_tokens`, `keep_ratio` and `prune_layer` that were given, as text.
        flags: the fields of a strategy, as they were given.
        params: each "NAME=VALUE".
        env: PriorTR's name of a conda environment, which has no meaning here.
    """

    model: str | None
    pretrained: str | None
    method: str | None
    strategy: str | None
    plugins: list[Path]
    budget: dict[str, str]
    flags: list[str]
    params: list[str]
    env: str | None
    gpus: str
    processes: int
    cache_dir: Path | None
    output: Path | None
    dry_run: bool
    as_json: bool

    def chosen(self) -> tuple[Target, Reduction]:
        """The model and what is put on it.

        Raises:
            InvalidRequest: either cannot be.
        """
        if self.env is not None:
            raise InvalidRequest(
                f"--env {self.env}: there are no environments to choose between, every model and method runs in the "
                "one that seeless is installed in; leave --env out"
            )
        if self.model is None:
            raise InvalidRequest(f"say which --model: {', '.join(SHORT)}, a hub id or a folder")
        if self.method is not None and self.strategy is not None:
            raise InvalidRequest("--method (as PriorTR's framework runs it) and --strategy exclude each other")
        found = target(self.model, self.pretrained)
        try:
            flags = read_flags(self.flags)
        except sl.SeelessError as error:
            raise InvalidRequest(one_line(error)) from error
        if self.method is None:
            return found, native(found, self.strategy, {**self.budget, **flags}, self.params, as_flag)
        for flag in flags:
            if flag not in BUDGET:
                raise InvalidRequest(
                    f"{as_flag(flag, '')} is no flag of --method; parameters are given as --param NAME=VALUE, see "
                    f"--describe {self.model} {self.method}; fields of a --strategy are flags"
                )
        budget = {**self.budget, **{name: value or "" for name, value in flags.items()}}
        return found, guest(found, self.method, budget, self.params)

    @property
    def loading(self) -> dict[str, Any]:
        """How this process loads configs and weights."""
        return {} if self.cache_dir is None else {"cache_dir": self.cache_dir}

    def check_gpus(self) -> None:
        """Raise `InvalidRequest` unless there is a device for every process."""
        devices = [device.strip() for device in self.gpus.split(",")] if self.gpus else []
        if not all(device.isdigit() for device in devices):
            raise InvalidRequest(f"--gpus {self.gpus}: give device numbers, as in --gpus 0,1")
        if devices and len(devices) < self.processes:
            raise InvalidRequest(f"--num-processes {self.processes} needs as many --gpus; given are {len(devices)}")

    def folder(self, found: Target, reduction: Reduction, subject: str) -> Path:
        """Where the output goes."""
        return self.output or RESULTS_FOLDER / f"{found.name}_{reduction.label}_{subject}".replace("*", "all")


def check_model(found: Target, reduction: Reduction, loading: dict[str, Any], one_picture: bool = False) -> Any:
    """Raise what would come up in the first forward; no weight is read.

    Args:
        loading: how the config is loaded.
        one_picture: whether every question is about one.

    Returns:
        The model without weights.

    Raises:
        InvalidRequest: a budget or layer that the model does not have.
        UnsupportedModel, UnloadableModel: the model cannot be had, or not with this method.
    """
    skeleton = models.skeleton(load_config(resolve_name(found.pretrained), **loading))
    if reduction.strategy is not None:
        try:
            models.check_strategy(skeleton, reduction.strategy)
            check_count(skeleton, reduction.strategy, one_picture)
        except sl.BudgetError as error:
            raise InvalidRequest(str(error)) from error
    return skeleton


@dataclass(frozen=True)
class TaskRun:
    """Which tasks are run, and how; see the flags of the same names."""

    tasks: str | None
    include_path: Path | None
    limit: float | None
    batch_size: int | None
    extra: str
    port: int


def run_tasks(run: Run, task_run: TaskRun) -> None:
    """Evaluate on tasks of lmms-eval and print what came out.

    Raises:
        InvalidRequest: before anything is loaded.
        MissingEvaluator: lmms-eval is not installed.
        FailedEvaluation: it did not end with all results.
    """
    found, reduction = run.chosen()
    run.check_gpus()
    asked, leaf_tasks = _tasks(task_run, OWN.get(found.pretrained, ()))
    one_picture = show_one_picture(leaf_tasks)
    for line in (*reduction.notices, *([found.note] if found.note else [])):
        notice(line)
    if found.on_disk or not run.dry_run:
        check_model(found, reduction, run.loading, one_picture)
    evaluation = Evaluation(
        model_id=reduction.model_id,
        model_args={"pretrained": found.pretrained, **_plugins(run.plugins), **reduction.arguments},
        tasks=asked,
        include_path=(task_run.include_path or tasks_path()).resolve(),
        output=run.folder(found, reduction, (task_run.tasks or "offline").replace(",", "-")),
        batch_size=task_run.batch_size or (TINY_BATCH if found.embedded else 1),
        simple=any(task.choice for task in leaf_tasks.values()),
        limit=task_run.limit,
        extra=task_run.extra,
        gpus=run.gpus,
        processes=run.processes,
        port=task_run.port,
        cache_dir=run.cache_dir,
        cpu=run.processes > 1 and not run.gpus and not _has_gpu(),
    )
    if run.dry_run:
        print(evaluation.line())
        return
    file, table = _evaluate(evaluation, list(leaf_tasks))
    beside = _published(found, reduction, table)
    if run.as_json:
        print_json(
            {
                "model": found.pretrained,
                "model_id": evaluation.model_id,
                "model_args": evaluation.model_args,
                "command": evaluation.line(),
                "results": str(file),
                "rows": [row.to_dict() for row in table],
                "published": [comparison.to_dict() for comparison in beside],
            }
        )
        return
    say(f"{found.pretrained} · {', '.join(f'{name}={value}' for name, value in reduction.arguments.items())}\n")
    _print_rows(table)
    print_compared([([], comparison) for comparison in beside], [], whole=task_run.limit is None)
    say(f"\nresults: {file}\nanswers: {file.parent}\nlog:     {evaluation.output / LOG}")


def _tasks(task_run: TaskRun, own_tasks: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The tasks as lmms-eval is asked for them, and the ones behind tags and groups.

    Args:
        own_tasks: those of an embedded model, which are run unless told.
    """
    if task_run.tasks is None and not own_tasks:
        raise InvalidRequest(f"say which --tasks: lmms-eval's, as in --tasks mme,pope, or {', '.join(SHORT_NAMES)}")
    names = [name.strip() for name in (task_run.tasks or ",".join(own_tasks)).split(",")]
    asked = full_names(dict.fromkeys(name for name in names if name))
    own, shipped = task_run.include_path, task_names(tasks_path())
    check_folders([] if own is None else [own])
    if own is not None and any(name in shipped for name in asked):
        raise InvalidRequest("lmms-eval takes one folder of further tasks: leave --include-path out for shipped tasks")
    lmms_eval = lmms_eval_folder()
    known = shipped
    if not asked or not all(name in shipped for name in asked):
        known = task_names(lmms_eval / "tasks", own or tasks_path())
    check_tasks(asked, known)
    return asked, leaves(asked, known)


def _evaluate(evaluation: Evaluation, tasks: list[str]) -> tuple[Path, list[Row]]:
    check_cache()
    with claimed_folder(evaluation.output):
        log, before = evaluation.output / LOG, results_in(evaluation.output)
        code = launch(evaluation.command(), evaluation.environment(), log)
        if code != 0:
            raise FailedEvaluation(f"lmms-eval ended with exit code {code}: {reason(log)} (all of it: {log})")
        try:
            file, results = read_results(evaluation.output, before, tasks, evaluation.limit)
        except FailedEvaluation as error:
            raise FailedEvaluation(f"{error}: {reason(log)} (all of it: {log})") from error
        return file, rows(file, results)


def _published(found: Target, reduction: Reduction, table: list[Row]) -> list[Comparison]:
    """What others have published for this model, method and budget, beside the rows."""
    if not can_read():
        notice(NEEDED)
        return []
    strategy = reduction.strategy
    fields = strategy.to_dict() if isinstance(strategy, sl.Strategy | VTRConfig) else None if strategy is None else {}
    figures = matching(reduction.arguments["strategy"], fields, found.pretrained)
    return compare(figures, ((row.task, row.metric, row.value) for row in table))


def _print_rows(table: list[Row]) -> None:
    lines = []
    for row in table:
        lines.append(
            [
                row.task,
                row.metric,
                "-" if row.value is None else f"{row.value:.4g}",
                str(row.samples),
                "-" if row.visual_tokens is None else f"{row.visual_tokens:.1f}",
                "-" if row.flops_share is None else f"{100 * row.flops_share:.0f} %",
                "-" if row.prefill_seconds is None else f"{1000 * row.prefill_seconds:.1f} ms",
            ]
        )
    print_table(["task", "metric", "value", "n", "visual tokens/layer", "prefill FLOPs", "prefill"], lines)


def list_methods() -> None:
    """The models with their checkpoints, and the methods, all of which run on all of them."""
    listed = [
        [name, each.pretrained, each.guest_id or "", "; ".join(filter(None, (each.original, each.note)))]
        for name, each in SHORT.items()
    ]
    print_table(["--model", "checkpoint", "lmms-eval model", "PriorTR's own"], listed)
    say("\nEvery hub id or folder of a supported model will do, too.\n")
    about = {method: card_of(GUEST + method).doc.partition("\n")[0] for method in methods() if method != BASELINE}
    lines = [[method, ", ".join(SHORT), about.get(method, "The model as it is.")] for method in methods()]
    print_table(["--method", "on", "what it does"], lines)
    say(f"\nParameters: --describe MODEL METHOD. Strategies (--strategy): {', '.join(sl.available())}")


def describe_method(model: str, method: str) -> None:
    """What a method takes on a model.

    Raises:
        InvalidRequest: no such model or method.
    """
    found = target(model)
    reduction = guest(found, method, {}, [])
    say(f"{method} on {model}: {found.pretrained}, lmms-eval model {reduction.model_id}")
    if method != BASELINE:
        say(f"\n{card_of(GUEST + method).doc}\n")
        say("budget: --keep-tokens N or --keep-ratio R" + ("" if method == "vispruner" else ", --prune-layer K"))
    lines = [[name, takes(kind)] for name, kind in method_params(found, method).items()]
    print_table(["--param", "takes"], lines)


def _plugins(files: list[Path]) -> dict[str, str]:
    for file in files:
        if set(",;=") & set(str(file)):
            raise InvalidRequest(f"lmms-eval cannot take the plugin {str(file)!r}: no ',', ';' or '=' may be in it")
    return {"plugin": ";".join(map(str, files))} if files else {}


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
