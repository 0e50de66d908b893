"""Run studies over pictures: a forward each, what is gathered in one file, going on where a run was stopped."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from seeless import models, weights
from seeless.analysis.gathering import Gathered, Measured, load, save
from seeless.analysis.reading import read_attention
from seeless.analysis.samples import Sample, fingerprint
from seeless.analysis.study import Seen, Study
from seeless.errors import one_line
from seeless.pixels import UnreadableImage

if TYPE_CHECKING:
    from PIL.Image import Image

SAVE_EVERY = 1.0  # seconds
Build = Callable[["Image", Sample], Mapping[str, Any]]


def analyze(
    model: nn.Module,
    samples: Sequence[Sample],
    build: Build,
    studies: Sequence[Study],
    *,
    file: Path,
    settings: Mapping[str, Any],
    size: tuple[int, int] | None = None,
    tell: Callable[[Gathered], None] = lambda gathered: None,
) -> Gathered:
    """Run the samples through a model one by one, in order, and gather what the studies want.

    A run that is stopped, however that happens, is continued by the next one with the same file: what comes out is the
    same to the bit as without the stop. At most the pictures of the last second are read again. Pictures that cannot be
    read are left out, and named.

    Args:
        build: what the model takes in, of a picture and its sample.
        file: where what has been gathered is kept.
        settings: what the results depend on, plain JSON; a file made with others is refused.
        size: width and height to which pictures are brought before anything else.
        tell: called with what has been gathered after every picture.

    Raises:
        OtherStudy: the file is of a study with other settings or other weights, or of other pictures.
        InputError: pictures have unequally many visual tokens.
        UnreadableImage: no picture can be read.
        UnsupportedModel: the model cannot be read.
    """
    readable = models.readable_layers(model)
    layers = {study.name: study.layers(readable) for study in studies}
    wanted = sorted({layer for own in layers.values() for layer in own})
    all_rows = any(study.all_rows for study in studies)
    settings = {**settings, "studies": sorted(layers), "size": size, "weights": weights.fingerprint(model)}

    def first(count: int) -> str:
        return fingerprint(samples[:count])

    gathered, saved = load(file, settings, first), time.monotonic()
    tell(gathered)
    for sample in samples[gathered.done :]:
        try:
            image = sample.load()
            inputs = build(image if size is None else image.resize(size), sample)
        except UnreadableImage as error:
            gathered = gathered.without_one(sample.name, one_line(error))
        else:
            found = read_attention(model, inputs, wanted, all_rows) if wanted else None
            seen = Seen(model, inputs, found)
            parts = [study.measure(seen, layers[study.name]) for study in studies]
            gathered = gathered.with_one(sample.name, _joined(parts))
        tell(gathered)
        if time.monotonic() - saved >= SAVE_EVERY:
            save(gathered, file, settings, first(gathered.done))
            saved = time.monotonic()
    save(gathered, file, settings, first(gathered.done))
    if gathered.samples == 0:
        raise UnreadableImage(f"none of {len(samples)} pictures can be read; the first: {gathered.left_out[0][1]}")
    return gathered


def _joined(parts: Sequence[Measured]) -> Measured:
    means, pooled, facts = ({}, {}, {})  # type: ignore[var-annotated]
    for part in parts:
        means.update(part.means)
        pooled.update(part.pooled)
        facts.update(part.facts)
    return Measured(means, pooled, facts)
