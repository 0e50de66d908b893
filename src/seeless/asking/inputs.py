"""A question about pictures as a model takes it in."""

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seeless import models
from seeless.errors import InputError, MissingExtra, brief, one_line
from seeless.named.checkpoints import LoadedModel
from seeless.named.errors import UnloadableModel
from seeless.pixels import UnreadableImage

if TYPE_CHECKING:
    from PIL.Image import Image

    from seeless.pixels import Video


PLACEHOLDERS = ("image_token", "video_token")


def check_question(question: str, processor: Any) -> None:
    """Raise `InputError` if a question cannot be put to a model: no text, or text that stands for a picture."""
    if question.encode("utf-8", "replace") != question.encode("utf-8", "surrogatepass"):
        raise InputError(f"the question {brief(question)} has bytes that are no UTF-8; write it in UTF-8")
    for name in PLACEHOLDERS:
        token = getattr(processor, name, None)
        if isinstance(token, str) and token in question:
            raise InputError(
                f"the question {brief(question)} has {token} in it, which this model keeps for its pictures; leave it "
                "out, pictures come before the question by themselves"
            )


def check_video_processor(model: Any) -> None:
    """Raise `MissingExtra` if a model takes videos of their own and their processor lacks a package.

    Args:
        model: it, or its skeleton.
    """
    if models.takes_videos(model) and importlib.util.find_spec("torchvision") is None:
        raise MissingExtra("the video processor of this model needs torchvision: pip install torchvision")


def uncut_frames(loaded: LoadedModel) -> dict[str, int]:
    """What keeps an image processor that cuts pictures into tiles from cutting frames of videos, where frames are
    pictures to the model, if it can be told."""
    if models.takes_videos(loaded.model):
        return {}
    known = getattr(getattr(type(loaded.processor.image_processor), "valid_kwargs", None), "__annotations__", {})
    return {"max_patches": 1} if "max_patches" in known else {}


def build_inputs(
    loaded: LoadedModel, images: "list[Image]", sources: list[str], question: str, videos: "Sequence[Video]" = ()
) -> Any:
    """What the model takes in: the pictures first, then videos, then the question, in the model's own chat format.

    Args:
        sources: where the pictures, and after them the videos, come from.

    Raises:
        UnloadableModel: the checkpoint has no chat format.
        InputError: the question cannot be put to it.
        UnreadableImage: the processor refuses a picture.
    """
    from seeless.integrations.batches import Batches, UnusablePrompts
    from seeless.integrations.prompts import Prompt

    processor = loaded.processor
    check_question(question, processor)
    if getattr(processor, "chat_template", None) is None:
        raise UnloadableModel(f"{loaded.name!r} has no chat template, so a question cannot be put into its format")
    content: list[dict] = [
        *({"type": "image", "image": image} for image in images),
        *({"type": "video", "video": video} for video in videos),
        {"type": "text", "text": question},
    ]
    try:
        batches = Batches(loaded.model, processor, uncut_frames(loaded) if videos else None)
        return batches([Prompt([{"role": "user", "content": content}])])
    except UnusablePrompts as error:  # a picture of odd shape, say
        refused = [source for image, source in zip(images, sources, strict=False) if _refuses(processor, image)]
        named = ", ".join(map(brief, refused or sources))
        cause = error.__cause__ or error
        raise UnreadableImage(f"the model's processor refuses {named}: {one_line(cause)}") from error


def unknown_words(loaded: LoadedModel, inputs: Any) -> str:
    """What is to be said where a question has words that the model's vocabulary has not; "" where it has all."""
    unknown = loaded.processor.tokenizer.unk_token_id
    if unknown is None or not (inputs["input_ids"] == unknown).any():
        return ""
    return "the model's vocabulary does not have every word"


def _refuses(processor: Any, image: "Image") -> bool:
    try:
        processor.image_processor(images=[image], return_tensors="pt")
    except Exception:
        return True
    return False
