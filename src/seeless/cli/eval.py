"""`seeless eval`: benchmarks through lmms-eval, or questions about videos, with fewer visual tokens."""

from pathlib import Path
from typing import Annotated

import typer

from seeless.cli.catalogue import complete_name
from seeless.cli.options import questions
from seeless.cli.script_flags import Asked, without_prefix
from seeless.named.plugins import load_plugins

MODEL, BUDGET, TASKS, MACHINE = "Model and method", "Budget", "Tasks of lmms-eval", "Machine"
VIDEOS, OUTPUT = "Questions about videos", "Output"


def evaluate(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=MODEL,
            help="llava, internvl, qwen2vl, qwen3vl, video-llava, tiny or reader (embedded), a hub id or a folder.",
        ),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(metavar="ID_OR_PATH", rich_help_panel=MODEL, help="Another checkpoint for that name.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=MODEL, help="A method as PriorTR's framework runs it; baseline."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=MODEL,
            help="A strategy of seeless, with its fields as flags.",
            autocompletion=complete_name,
        ),
    ] = None,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", rich_help_panel=MODEL, help="Python file that registers either; may be repeated."),
    ] = None,
    keep_tokens: Annotated[
        str | None, typer.Option(metavar="N", rich_help_panel=BUDGET, help="Visual tokens a --method keeps.")
    ] = None,
    keep_ratio: Annotated[
        str | None, typer.Option(metavar="R", rich_help_panel=BUDGET, help="Share of the visual tokens it keeps.")
    ] = None,
    prune_layer: Annotated[
        str | None, typer.Option(metavar="K", rich_help_panel=BUDGET, help="Layers that see all of them; 8,16 for two.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", rich_help_panel=BUDGET, help="A parameter; see --describe. May repeat."),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(metavar="A,B", rich_help_panel=TASKS, help="Names, tags, groups; scenes,scenes_choice offline."),
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option(metavar="FOLDER", rich_help_panel=TASKS, help="A folder with task files of your own.")
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(metavar="N_OR_SHARE", rich_help_panel=TASKS, help="Questions per task, below 1 their share."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=TASKS, help="Questions per forward; 1, with tiny 16.")
    ] = None,
    extra: Annotated[
        str,
        typer.Option(metavar="A=B,C=D", rich_help_panel=TASKS, help="Model arguments added unchecked."),
    ] = "",
    gpus: Annotated[str, typer.Option(metavar="0,1", rich_help_panel=MACHINE, help="CUDA_VISIBLE_DEVICES.")] = "",
    num_processes: Annotated[
        int, typer.Option(min=1, rich_help_panel=MACHINE, help="Processes that share the questions.")
    ] = 1,
    port: Annotated[int, typer.Option(min=1, rich_help_panel=MACHINE, help="Where they meet.")] = 29500,
    cache_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", rich_help_panel=MACHINE, help="Where checkpoints are kept.")
    ] = None,
    env: Annotated[str | None, typer.Option(hidden=True)] = None,
    video_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", rich_help_panel=VIDEOS, help="Where the videos are.")
    ] = None,
    gt_question: Annotated[
        Path | None, typer.Option(metavar="FILE", rich_help_panel=VIDEOS, help="JSON list of questions.")
    ] = None,
    gt_answers: Annotated[
        Path | None, typer.Option(metavar="FILE", rich_help_panel=VIDEOS, help="JSON list of their answers.")
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=VIDEOS, help="The first so many; else all.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, rich_help_panel=VIDEOS, help="Frames of each, evenly spaced.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, rich_help_panel=VIDEOS, help="Longest answer.")] = 1024,
    num_chunks: Annotated[int, typer.Option(min=1, rich_help_panel=VIDEOS, help="Parts to cut the list into.")] = 1,
    chunk_idx: Annotated[int, typer.Option(min=0, rich_help_panel=VIDEOS, help="Which of them, from 0.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", rich_help_panel=OUTPUT, help="Else eval_results/MODEL_METHOD_BUDGET_TASKS."),
    ] = None,
    output_name: Annotated[str | None, typer.Option(hidden=True)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=OUTPUT, help="Print the command, and run nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", rich_help_panel=OUTPUT, help="One JSON object on stdout.")] = False,
    list_all: Annotated[
        bool, typer.Option("--list", rich_help_panel=OUTPUT, help="Models, their checkpoints, and methods.")
    ] = False,
    describe: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="MODEL METHOD", rich_help_panel=OUTPUT, help="A method's parameters on a model."),
    ] = None,
) -> None:
    """Evaluate a model with fewer visual tokens: tasks of lmms-eval, or your own questions about videos.

    Try it, offline: seeless eval --model tiny --strategy fastv --keep 0.25

    The flags of PriorTR's vtr_run.py do what they did: seeless eval --model qwen3vl --method priortr --tasks mme,pope
    --keep-ratio 0.2222 --prune-layer 3 --gpus 0,1 --num-processes 2 --limit 8

    So do those of its scripts for videos: --vtr_enabled --vtr_strategy fastv --vtr_keep_tokens 194 --video_dir videos

    With --strategy its fields are flags, as in `seeless run`: seeless eval --model llava --strategy pyramiddrop --layer
    8,16,24 --keep .5,.25,.125 --tasks mme

    Exit codes: see `seeless --help`.
    """
    from seeless.cli.evaluating import Run, TaskRun, describe_method, list_methods, run_tasks
    from seeless.cli.video_questions import VideoRun, run_videos

    load_plugins(plugin or [])
    if list_all:
        list_methods()
        return
    if describe is not None:
        describe_method(*describe)
        return
    budget = {"keep_tokens": keep_tokens, "keep_ratio": keep_ratio, "prune_layer": prune_layer}
    videos = {"--video-dir": video_dir, "--gt-question": gt_question, "--gt-answers": gt_answers}
    given_budget = {name: value for name, value in budget.items() if value is not None}
    asked = without_prefix(Asked(method, given_budget, param or [], context.args), videos=any(videos.values()))
    run = Run(
        model=model,
        pretrained=pretrained,
        method=asked.method,
        strategy=strategy,
        plugins=[file.resolve() for file in plugin or []],
        budget=asked.budget,
        flags=asked.flags,
        params=asked.params,
        env=env,
        gpus=gpus,
        processes=num_processes,
        cache_dir=cache_dir,
        output=output if output_name is None else (output or Path()) / output_name,
        dry_run=dry_run,
        as_json=as_json,
    )
    if any(videos.values()):
        others = {"--tasks": tasks, "--limit": limit, "--batch-size": batch_size, "--extra": extra}
        if given := [flag for flag, value in others.items() if value]:
            raise typer.BadParameter(f"{given[0]} is for tasks of lmms-eval, {', '.join(videos)} for your own videos")
        if missing := [flag for flag, value in videos.items() if value is None]:
            raise typer.BadParameter(f"questions about videos need {', '.join(videos)}; {missing[0]} is missing")
        assert video_dir is not None and gt_question is not None and gt_answers is not None
        run_videos(
            run,
            VideoRun(video_dir, gt_question, gt_answers, num_samples, frames, max_new_tokens, num_chunks, chunk_idx),
        )
        return
    if num_samples is not None or num_chunks > 1:
        raise typer.BadParameter("--num-samples and --num-chunks are for questions about videos; tasks have --limit")
    run_tasks(run, TaskRun(tasks, include_path, questions(limit), batch_size, extra, port))
