"""Put a question about pictures to a model."""

from typing import TYPE_CHECKING, Any

from seeless.cli.console import notice
from seeless.named.checkpoints import LoadedModel
from seeless.named.errors import UnloadableModel

if TYPE_CHECKING:
    from PIL.Image import Image


def build_inputs(loaded: LoadedModel, images: "list[Image]", question: str) -> Any:
    """What the model takes in: the pictures first, then the question, in the model's own chat format.

    Raises:
        UnloadableModel: the checkpoint has no chat format.
    """
    processor = loaded.processor
    if getattr(processor, "chat_template", None) is None:
        raise UnloadableModel(f"{loaded.name!r} has no chat template, so a question cannot be put into its format")
    content: list[dict] = [{"type": "image"}] * len(images) + [{"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    bos = processor.tokenizer.bos_token
    special = bos is None or not prompt.startswith(bos)
    inputs = processor(images=images, text=prompt, add_special_tokens=special, return_tensors="pt")
    if (unknown := processor.tokenizer.unk_token_id) is not None and (inputs["input_ids"] == unknown).any():
        notice(f"the model's vocabulary does not have every word of {question!r}")
    return inputs.to(loaded.model.device, loaded.model.dtype)


def generate_answer(loaded: LoadedModel, inputs: Any, max_new_tokens: int) -> str:
    """The model's answer, greedy."""
    ids = loaded.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return loaded.processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0].strip()
