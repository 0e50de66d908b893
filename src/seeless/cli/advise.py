"""`seeless advise`: which methods suit a model, what they save here, and what is published about them."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeless.cli.bench import QUICK_ANSWER, QUICK_ROUNDS, read_scale, read_size
from seeless.cli.console import print_json
from seeless.cli.options import Arch, Attention, Device, Dtype, Layers, Scale
from seeless.errors import SeelessError, brief

if TYPE_CHECKING:
    from seeless.advice.advising import About
    from seeless.advice.candidates import Candidate
    from seeless.bench.loading import Loaded

TEXT = 75  # tokens in a request beside the picture, as many as `seeless bench` has unless told
USE_OF = {"many": "conversation", "one": "question"}


class UnreachedLatency(SeelessError):
    """No method is as soon as was wished, on this machine."""

    exit_code = 1


def advise(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="Hub id, folder or a short name of `seeless eval`; the embedded reader unless told."
        ),
    ] = None,
    arch: Arch = None,
    scale: Scale = "1",
    layers: Layers = None,
    questions: Annotated[str, typer.Option(metavar="one|many", help="About one picture.")] = "many",
    frames: Annotated[int | None, typer.Option(min=1, help="Videos of so many frames, in place of pictures.")] = None,
    latency: Annotated[
        str | None,
        typer.Option(metavar="MS_OR_SHARE", help="Find the budget with which the first token is there: 250, 0.6."),
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="HxW", help="In pixels: 336x336; what suits the model unless told.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 1,
    device: Device = None,
    dtype: Dtype = None,
    attention: Attention = "sdpa",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Which methods suit a model, for what; what the best cost and save on this machine; what is published; the line.

    seeless advise llava-hf/llava-1.5-7b-hf --questions one --latency 0.6

    Methods are put in order by figures that others have published, compared within one source; times are measured here,
    as `seeless bench --quick` measures them. Nothing here says how well a model answers your questions.
    """
    from seeless.advice.advising import suited
    from seeless.advice.choosing import choose_at_once, choose_in_time
    from seeless.advice.latency import read_wish
    from seeless.advice.measuring import timed
    from seeless.advice.uses import USES, use_named
    from seeless.bench.prompts import Workload
    from seeless.cli.advice_text import Advice, print_advice
    from seeless.eval.errors import InvalidRequest
    from seeless.eval.published import figures
    from seeless.provenance import provenance

    if questions not in USE_OF:
        raise typer.BadParameter(f"--questions {brief(questions)} is neither one nor many")
    wish = read_wish(latency) if latency is not None else None
    size = read_size(image_size) if image_size is not None else None
    figures()  # what cannot be read is said before anything is loaded
    loaded, about = _model(model, arch, read_scale(scale), layers, device, dtype, attention)
    if frames is not None and not about.description.videos:
        raise InvalidRequest(
            f"{about.description.family} takes no videos of their own, only frames as a row of pictures; leave out "
            "--frames"
        )
    workload = Workload(batch, size or loaded.picture, 1, frames or 0, TEXT, int(QUICK_ANSWER))
    uses = [suited(about, use) for use in USES]
    asked = use_named("video" if frames is not None else USE_OF[questions])
    mine = next(each for each in uses if each.use == asked)
    if not mine.candidates:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in mine.refused.items())
        raise InvalidRequest(f"no method for {asked.title} runs on this model: {reasons}")
    with _saying() as step:

        def time(candidates: "Sequence[Candidate]") -> Any:
            return timed(loaded, workload, candidates, QUICK_ROUNDS, step)

        chosen = choose_at_once(about, mine, time) if wish is None else choose_in_time(about, mine, wish, time)
    command = shlex.join(["seeless", *sys.argv[1:]])
    advice = Advice(about, uses, workload, chosen, QUICK_ROUNDS, {"command": command, **provenance()})
    if as_json:
        print_json(advice.to_dict())
    else:
        print_advice(advice)
    if chosen.reason and not chosen.soon_enough:
        raise UnreachedLatency(chosen.reason)


def _model(
    model: str | None,
    arch: str | None,
    scale: Fraction,
    layers: int | None,
    device: str | None,
    dtype: str | None,
    attention: str,
) -> "tuple[Loaded, About]":
    """The model, and what is known of it. A folder's weights may be anybody's, so nothing is published for them."""
    from seeless import models
    from seeless.advice.advising import About, published_name
    from seeless.bench.loading import check_one, load
    from seeless.eval.targets import target
    from seeless.named.checkpoints import READER, embedded_path

    check_one(model, arch)
    name = None if arch is not None else target(model or READER).pretrained
    loaded = load(name, arch, scale, layers, device, dtype, attention)
    skeleton = models.skeleton(loaded.model.config)
    shown = f"the embedded model {name}" if name is not None and embedded_path(name) else loaded.name
    return loaded, About(shown, name, published_name(name, arch), skeleton, models.describe(skeleton, strategies=()))


@contextmanager
def _saying() -> "Iterator[Callable[[str], None]]":
    """A line on stderr that says what is timed."""
    from rich.console import Console

    with Console(file=sys.stderr, highlight=False).status("timing") as status:
        yield lambda label: status.update(f"timing {label}")
