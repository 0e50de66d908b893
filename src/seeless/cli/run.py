"""`seeless run`: one question, with all visual tokens and with fewer."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import seeless as sl
from seeless.asking.tasks import QUESTIONS, Task, make_task
from seeless.cli.catalogue import complete_name
from seeless.cli.console import notice, print_json, print_table, say
from seeless.cli.flags import as_flag, read_flags
from seeless.cli.options import Device, Dtype, Plugins
from seeless.named.checkpoints import READER, LoadedModel, load_config, load_model, resolve_name
from seeless.named.knobs import build_strategies
from seeless.named.places import check_attention, check_dtype, place_of
from seeless.named.plugins import load_plugins
from seeless.named.strategies import shadowed

if TYPE_CHECKING:
    from seeless.asking.results import Result
    from seeless.strategy import Recipe

DEFAULT_STRATEGY = "fastv"
BUDGETS = (192, 128, 64)  # of 576 visual tokens, as in every paper: what is shown when nothing is asked for
DEFAULT_OVERLAY = Path("seeless-overlay.png")


def run(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(metavar="ID_OR_PATH", help="Checkpoint; reader or tiny, the embedded ones; reader unless told."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE_OR_URL", help="A picture: a path, an address, a data: URI; may be repeated. Else a drawn one."
        ),
    ] = None,
    allow_private_urls: Annotated[
        bool, typer.Option("--allow-private-urls", help="Fetch pictures from this machine and its network, too.")
    ] = False,
    video: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="A video, after the pictures; may be repeated.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Of each video, evenly spaced.")] = 8,
    ask: Annotated[str | None, typer.Option(metavar="TEXT", help="The question.")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="See `seeless list`; fastv unless told.", autocompletion=complete_name),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Several strategies, one line each, beside the untouched model.")
    ] = None,
    plugin: Plugins = None,
    save_overlay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the picture of what was kept goes.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 32,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Which of the drawn pictures.")] = 0,
    repeats: Annotated[int, typer.Option(min=0, help="Timed runs after one warm-up; 0: measure no times.")] = 5,
    device: Device = None,
    dtype: Dtype = None,
    attention: Annotated[
        str | None,
        typer.Option("--attn-implementation", metavar="NAME", help="sdpa, eager, flash_attention_2; the model's own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Answer one question with all visual tokens and with fewer: answers, tokens, FLOPs, times and a picture.

    The fields of a strategy are flags, too: --keep 0.25, --keep 64, --keep .5,.25,.125, --layer 8,16,24,
    --head-aggregation max, --newlines or --no-newlines; --random.seed 3 sets a field of one strategy only.
    Without --keep: the strategy's own budget, else 0.25; without anything, fastv at 192, 128 and 64 tokens.
    With a point it is a share, without one a number of tokens: --keep 1 keeps one token, --keep 1.0 all.

    A guest, registered through seeless.vtr, has the fields of its configuration: --keep-tokens 64 --prune-layer 3.
    vtr:NAME is the framework's version where seeless has a strategy of this name, too.
    """
    from seeless import models
    from seeless.asking.inputs import check_video_processor
    from seeless.asking.results import result_dict
    from seeless.cli.pictures import check_target, save_overlays

    load_plugins(plugin or [])
    if strategy is not None and compare is not None:
        raise typer.BadParameter("--strategy and --compare exclude each other")
    names = [strategy or DEFAULT_STRATEGY] if compare is None else _names(compare)
    flags = read_flags(context.args)
    if model is None and strategy is None and compare is None and not flags:
        strategies: dict[str, Any] = {f"{names[0]} {keep}": sl.get(names[0], keep=keep) for keep in BUDGETS}
    else:
        strategies = dict(zip(names, build_strategies(names, flags, as_flag), strict=True))
    for taken in set(names) & set(shadowed()):
        notice(f"{taken!r} is the plugin's guest; seeless' own strategy of this name is not used")
    overlay = save_overlay or (DEFAULT_OVERLAY if compare is None and not as_json else None)
    if overlay is not None:
        check_target(overlay)
    model = model or READER
    place = "cpu" if model in QUESTIONS and device is None else str(place_of(device))
    check_dtype(dtype)
    if attention is not None:
        check_attention(attention)
    embedded = model if model in QUESTIONS else None
    task = make_task(image or [], video or [], frames, allow_private_urls, ask, seed, embedded)

    name = resolve_name(model)
    skeleton = models.skeleton(load_config(name))
    for each in strategies.values():
        models.check_strategy(skeleton, each)
    if task.videos and models.takes_videos(skeleton):
        if save_overlay is not None:
            raise typer.BadParameter("--save-overlay is for pictures; of a video every frame keeps something else")
        check_video_processor(skeleton)
        overlay = None
    kernel: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    loaded = load_model(name, device=place, dtype=dtype, **kernel)
    results = _answer_all(loaded, task, strategies, max_new_tokens, repeats)

    reports = [result.report for result in results if result.report is not None]
    rows = [result_dict(result, reports[0], task.right_answer) for result in results]
    if not as_json:
        _print_run(f"{model} (embedded)" if model in QUESTIONS else name, task, rows, results, repeats)
    if overlay is not None:
        save_overlays(overlay, [*task.images, *(frame for each in task.videos for frame in each.frames)], reports)
    if not as_json:
        if overlay is not None:
            say(f"\nwhat was kept: {overlay}{_who_saw_the_rest(reports)}")
        return
    print_json(
        {
            "model": name,
            "images": task.pictured,
            "videos": task.filmed,
            "question": task.question,
            "right_answer": task.right_answer,
            "overlay": None if overlay is None else str(overlay),
            "repeats": repeats,
            "runs": rows,
        }
    )


def _names(compare: str) -> list[str]:
    """The strategies to compare; `none` is always one of the lines and need not be named."""
    names = [name.strip() for name in compare.split(",")]
    names = [name for name in dict.fromkeys(names) if name not in ("", "none")]
    if not names:
        raise typer.BadParameter("--compare needs at least one strategy")
    return names


def _answer_all(
    loaded: LoadedModel, task: Task, strategies: "dict[str, sl.Strategy | Recipe]", max_new_tokens: int, repeats: int
) -> "list[Result]":
    """The untouched model first, then every strategy."""
    from seeless.asking.answers import answer_reduced, generate_answer
    from seeless.asking.results import Result
    from seeless.asking.timing import measure
    from seeless.cli.questions import inputs_of

    inputs = inputs_of(loaded, task.images, task.sources, task.question, task.videos)
    found = [answer_reduced(loaded, inputs, strategy, max_new_tokens) for strategy in strategies.values()]
    untouched = generate_answer(loaded, inputs, max_new_tokens)
    everyone: dict[str, Any] = {"none": None, **strategies}
    times = measure(loaded.model, inputs, list(everyone.values()), repeats) if repeats else [None] * len(everyone)
    answers = [(untouched, None), *found]
    lines = zip(everyone.items(), answers, times, strict=True)
    return [Result(name, strategy, *answer, time) for (name, strategy), answer, time in lines]


def _print_run(name: str, task: Task, rows: list[dict], results: "list[Result]", repeats: int) -> None:
    from seeless.asking.results import COLUMNS, cells, what_is_faster, what_is_not_faster

    say(f"model         {name}")
    for kind, shown in (("image", task.pictured), ("video", task.filmed)):
        if shown:
            say(f"{kind}         {', '.join(shown)}")
    say(f"question      {task.question}")
    if task.right_answer is not None:
        say(f"right answer  {task.right_answer}")
    say()
    print_table(COLUMNS, [cells(row) for row in rows])
    if repeats:
        say(f"times: median of {repeats}, measured just now; prefill = until the first token is there")
        for told in (what_is_faster(rows), what_is_not_faster(rows)):
            if told:
                say(told)
    for result in results:
        if result.report is not None:
            say(f"\n{result.headline}\n{result.report}")


def _who_saw_the_rest(reports: "list[sl.Report]") -> str:
    """How an answer can be about what is dark in the picture; "" if only the picture's bright parts reached a layer."""
    first = {stage.layer for report in reports for stage in report.stages[:1]}
    if len(first) != 1 or (layer := first.pop()) < 1:
        return ""
    told = "layer 0 has" if layer == 1 else f"layers 0 to {layer - 1} have"
    return f" (what is dark {told} read all the same)"
