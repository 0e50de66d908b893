"""Put a question about pictures to a model."""

from typing import TYPE_CHECKING, Any

from seeless.cli.console import notice
from seeless.errors import InputError, brief, one_line
from seeless.named.checkpoints import LoadedModel
from seeless.named.errors import UnloadableModel
from seeless.pixels import UnreadableImage

if TYPE_CHECKING:
    from PIL.Image import Image


PLACEHOLDERS = ("image_token", "video_token")


def check_question(question: str, processor: Any) -> None:
    """Raise `InputError` if a question cannot be put to a model: no text, or text that stands for a picture."""
    if question.encode("utf-8", "replace") != question.encode("utf-8", "surrogatepass"):
        raise InputError(f"--ask {brief(question)} has bytes that are no UTF-8; write it in UTF-8")
    for name in PLACEHOLDERS:
        token = getattr(processor, name, None)
        if isinstance(token, str) and token in question:
            raise InputError(
                f"--ask {brief(question)} has {token} in it, which this model keeps for its pictures; leave it out, "
                "pictures come before the question by themselves"
            )


def build_inputs(loaded: LoadedModel, images: "list[Image]", sources: list[str], question: str) -> Any:
    """What the model takes in: the pictures first, then the question, in the model's own chat format.

    Args:
        sources: where the pictures come from.

    Raises:
        UnloadableModel: the checkpoint has no chat format.
        InputError: the question cannot be put to it.
        UnreadableImage: the processor refuses a picture.
    """
    processor = loaded.processor
    check_question(question, processor)
    if getattr(processor, "chat_template", None) is None:
        raise UnloadableModel(f"{loaded.name!r} has no chat template, so a question cannot be put into its format")
    content: list[dict] = [{"type": "image"}] * len(images) + [{"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    bos = processor.tokenizer.bos_token
    special = bos is None or not prompt.startswith(bos)
    try:
        inputs = processor(images=images, text=prompt, add_special_tokens=special, return_tensors="pt")
    except Exception as error:  # a picture of odd shape, say
        refused = [source for image, source in zip(images, sources, strict=True) if _refuses(processor, image)]
        named = ", ".join(map(brief, refused or sources))
        raise UnreadableImage(f"the model's processor refuses {named}: {one_line(error)}") from error
    if (unknown := processor.tokenizer.unk_token_id) is not None and (inputs["input_ids"] == unknown).any():
        notice(f"the model's vocabulary does not have every word of {question!r}")
    return inputs.to(loaded.model.device, loaded.model.dtype)


def _refuses(processor: Any, image: "Image") -> bool:
    try:
        processor.image_processor(images=[image], return_tensors="pt")
    except Exception:
        return True
    return False


def generate_answer(loaded: LoadedModel, inputs: Any, max_new_tokens: int) -> str:
    """The model's answer, greedy."""
    ids = loaded.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return loaded.processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0].strip()
