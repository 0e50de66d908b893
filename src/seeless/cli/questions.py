"""One question about pictures, for commands that put it to a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seeless.cli.console import notice
from seeless.named.checkpoints import LoadedModel

if TYPE_CHECKING:
    from PIL.Image import Image

    from seeless.pixels import Video


def inputs_of(
    loaded: LoadedModel, images: "list[Image]", sources: list[str], question: str, videos: "Sequence[Video]" = ()
) -> Any:
    """`asking.inputs.build_inputs`, with a notice where the model does not know every word."""
    from seeless.asking.inputs import build_inputs, unknown_words

    inputs = build_inputs(loaded, images, sources, question, videos)
    if told := unknown_words(loaded, inputs):
        notice(f"{told} of {question!r}")
    return inputs
