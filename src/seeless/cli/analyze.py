"""`seeless analyze`: studies of where a model looks."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import seeless as sl
from seeless.cli.catalogue import complete_name
from seeless.cli.console import notice, print_json, print_table, say
from seeless.cli.options import Plugins, items
from seeless.cli.questions import inputs_of
from seeless.errors import brief, did_you_mean
from seeless.jsonl import encode
from seeless.named.checkpoints import (
    READER,
    TINY,
    LoadedModel,
    embedded_path,
    load_config,
    load_embedded,
    load_model,
    resolve_name,
)
from seeless.named.knobs import Values, build_strategies
from seeless.named.plugins import load_plugins
from seeless.outputs import claimed_folder, make_folder, replace_file

if TYPE_CHECKING:
    from seeless.analysis import Gathered, Sample, Study

DRAWINGS = 50
QUESTION = "What is shown in this picture?"
ENDINGS = (".png", ".svg", ".pdf")


def analyze(
    data: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER_OR_JSON", help="Pictures, or records of a picture and a question; else drawn."),
    ] = None,
    study: Annotated[
        str, typer.Option(metavar="A,B", help="shift, dispersion (FasterVLM's studies), share, overlap, occlusion.")
    ] = "shift,dispersion",
    strategies: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="Methods, for overlap and occlusion; see `seeless list`.", autocompletion=complete_name
        ),
    ] = "fastv,fastervlm",
    keep: Annotated[str, typer.Option(metavar="A,B", help="Budgets, for overlap and occlusion.")] = "0.5,0.25",
    region: Annotated[int, typer.Option(min=1, metavar="TOKENS", help="Along a side of what occlusion drops.")] = 2,
    param: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="A field of these methods; may be repeated.")
    ] = None,
    plugin: Plugins = None,
    model: Annotated[
        str, typer.Option(metavar="ID_OR_PATH", help="Checkpoint; reader or tiny, the embedded ones.")
    ] = READER,
    ask: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The question to every picture, in place of the records' own.")
    ] = None,
    image_folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="What the records' paths are relative to.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help=f"How many pictures, from the first on; all, or {DRAWINGS} drawn ones.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Bring all pictures to one size first: 448x448.")
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where figures and numbers go; a stopped run goes on from there.")
    ] = Path("seeless-analysis"),
    ending: Annotated[str, typer.Option("--format", metavar="KIND", help="Of the figures: png, svg or pdf.")] = "png",
    as_json: Annotated[bool, typer.Option("--json", help="The numbers as one JSON object on stdout.")] = False,
) -> None:
    """Where a model looks, over many pictures: numbers as JSON, and figures.

    shift: does text look more at later visual tokens than at earlier ones, whatever they show? dispersion: is text's
    attention spread over more tokens than the vision tower's? share: how much of text's attention goes to visual
    tokens? Nothing is dropped for these, and every attention kernel will do. overlap: do methods keep the same tokens,
    layer by layer? --param layer=3 sets a field of all that have it, --param fastv.layer=3 of one. occlusion: what does
    the model's answer lose when one region of the picture is dropped, and do methods keep it?

    Records are {"image": ..., "question": ...} or LLaVA's with "conversations", whose first question is asked.
    """
    from seeless import models
    from seeless.analysis import STUDIES, KeptOverlap, Occlusion
    from seeless.eval.drawing import check_picture

    names = items(study)
    known = [*STUDIES, KeptOverlap.name, Occlusion.name]
    for name in names:
        if name not in known:
            guess = did_you_mean(name, known) or f"there are {', '.join(known)}"
            raise typer.BadParameter(f"no study is called {brief(name)}; {guess}")
    about_methods = {KeptOverlap.name, Occlusion.name} & {*names}
    if param and not about_methods:
        raise typer.BadParameter(f"--param {brief(param[0])} is for methods: overlap and occlusion have some")
    load_plugins(plugin or [])
    methods = _methods(items(strategies), items(keep), param or []) if about_methods else {}
    made: dict[str, Callable[[], Study]] = {
        **STUDIES,
        KeptOverlap.name: lambda: KeptOverlap(methods),
        Occlusion.name: lambda: Occlusion(region, methods),
    }
    chosen = [made[name]() for name in names]
    if f".{ending}" not in ENDINGS:
        raise typer.BadParameter(f"--format {brief(ending)}: figures are png, svg or pdf")
    wanted = None if size is None else _size(size)
    asked = _samples(data, image_folder, ask, samples, model)
    make_folder(output)
    check_picture(output / f"{names[0]}.{ending}")
    embedded, name = embedded_path(model) is not None, resolve_name(model)
    skeleton = models.skeleton(load_config(name))
    for each in (strategy for of_budget in methods.values() for strategy in of_budget.values()):
        models.check_strategy(skeleton, each)
    settings: dict[str, Any] = {
        "model": model if embedded else name,
        "methods": {budget: [s.to_dict() for s in own.values()] for budget, own in methods.items()},
        "plugins": [str(file) for file in plugin or []],
        "region": region if Occlusion.name in names else None,
    }
    with claimed_folder(output):
        loaded = load_embedded(model) if embedded else load_model(name)
        gathered = _gather(loaded, settings, asked, chosen, wanted, output)
        told = _numbers(settings["model"], gathered, chosen)
        replace_file(output / "numbers.json", encode(told, indent=1) + b"\n")
        if "shift" in names:
            make_folder(output / "shift")
        drawn = [file for each in chosen for file in each.draw(gathered, output, f".{ending}")]
        if methods:
            drawn.append(output / f"sheet.{ending}")
            left_out = {picture for picture, _ in gathered.left_out}
            shown = next(sample for sample in asked if sample.name not in left_out)
            _draw_sheet(loaded, shown, methods, wanted, drawn[-1], _first_loss(told))
    for picture, reason in gathered.left_out:
        notice(f"left out: {picture}: {reason}")
    if as_json:
        print_json(told)
        return
    _print(told, chosen)
    say(f"\n{gathered.samples} pictures; {output / 'numbers.json'} and {len(drawn)} figures, {drawn[0]} for one")


def _methods(names: list[str], budgets: list[str], params: list[str]) -> "dict[str, dict[str, sl.Strategy]]":
    """The strategies by budget, and name."""
    values: Values = {}
    for text in params:
        name, equals, value = text.partition("=")
        values[name.strip()] = value if equals else None
    methods: dict[str, dict[str, sl.Strategy]] = {}
    for budget in budgets:
        methods[budget] = {}
        for name, built in zip(names, build_strategies(names, {**values, "keep": budget}), strict=True):
            if not isinstance(built, sl.Strategy):
                raise typer.BadParameter(f"{brief(name)} is a guest, whose budgets have other names; name seeless' own")
            methods[budget][name] = built
    return methods


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise typer.BadParameter(f"--size {brief(text)}: give width and height in pixels, 448x448")
    return int(width), int(height)


def _samples(data: Path | None, folder: Path | None, ask: str | None, count: int | None, model: str) -> "list[Sample]":
    from seeless.analysis import Sample, drawing_samples, folder_samples, record_samples, scene_samples

    if data is None:
        draw = scene_samples if model == TINY else drawing_samples
        drawn = draw(DRAWINGS if count is None else count)
        return drawn if ask is None else [Sample(each.name, ask, each.load) for each in drawn]
    found = folder_samples(data, ask or QUESTION) if data.is_dir() else record_samples(data, folder, ask)
    return found[:count]


def _gather(
    loaded: LoadedModel,
    settings: dict[str, Any],
    samples: "list[Sample]",
    studies: "list[Study]",
    size: tuple[int, int] | None,
    output: Path,
) -> "Gathered":
    from seeless.analysis import analyze as run

    settings = {**settings, "dtype": str(loaded.model.dtype).removeprefix("torch.")}

    def build(image: Any, sample: "Sample") -> Any:
        return inputs_of(loaded, [image], [sample.name], sample.question)

    state = output / "gathered.npz"
    try:
        with _progress(len(samples)) as tell:
            return run(loaded.model, samples, build, studies, file=state, settings=settings, size=size, tell=tell)
    except KeyboardInterrupt:
        notice(f"stopped; what was gathered is in {state}, and the same command goes on from there")
        raise SystemExit(130) from None


def _first_loss(told: dict[str, Any]) -> Any:
    """What the answer to the first picture loses without the region of each token; None where that was not asked."""
    import numpy as np

    if (found := told["studies"].get("occlusion")) is None:
        return None
    height, width = told["grid"]
    loss = np.array(found["loss"][0]).repeat(found["region"], 0).repeat(found["region"], 1)
    return loss[:height, :width]


def _draw_sheet(
    loaded: LoadedModel,
    sample: "Sample",
    methods: "dict[str, dict[str, sl.Strategy]]",
    size: tuple[int, int] | None,
    file: Path,
    loss: Any,
) -> None:
    """The first picture under every method and budget, beside what its answer loses."""
    from seeless.analysis import Seen
    from seeless.analysis.drawing import draw_sheet
    from seeless.analysis.overlap import reports_of

    image = sample.load() if size is None else sample.load().resize(size)
    inputs = inputs_of(loaded, [image], [sample.name], sample.question)
    names = list(next(iter(methods.values())))
    draw_sheet(image, names, reports_of(Seen(loaded.model, inputs, None), methods), file, loss)


@contextmanager
def _progress(total: int) -> "Iterator[Callable[[Gathered], None]]":
    """A bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda gathered: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("pictures", total=total)
        yield lambda gathered: bar.update(task, completed=gathered.done)


def _numbers(name: str, gathered: "Gathered", studies: "list[Study]") -> dict[str, Any]:
    from seeless.provenance import provenance

    return {
        "command": shlex.join(["seeless", *sys.argv[1:]]),
        "model": name,
        "pictures": gathered.samples,
        "left_out": [list(each) for each in gathered.left_out],
        "visual_tokens": gathered.facts.get("visual tokens"),
        "grid": gathered.facts.get("grid"),
        "studies": {study.name: study.numbers(gathered) for study in studies},
        **provenance(),
    }


def _print(told: dict[str, Any], studies: "list[Study]") -> None:
    """The few numbers that answer each study's question."""
    for number, study in enumerate(studies):
        if number:
            say()
        print_table(*study.table(told["studies"][study.name]))
