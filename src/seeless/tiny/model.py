"""Load the embedded model: a real `LlavaForConditionalGeneration` with its processor, shipped in the package."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration


def tiny_path() -> Path:
    """The folder of the embedded checkpoint, usable wherever a model path is expected."""
    return Path(__file__).with_name("checkpoint")


def load_tiny(**options: Any) -> "tuple[LlavaForConditionalGeneration, Any]":
    """The embedded model in float32 on the CPU, ready to answer, and its processor.

    Args:
        options: passed on to `from_pretrained` (`attn_implementation="eager"`, say).

    >>> model, processor = load_tiny()
    >>> model.config.text_config.num_hidden_layers
    8
    """
    return load_embedded_llava(tiny_path(), **options)


def load_embedded_llava(folder: Path, **options: Any) -> "tuple[LlavaForConditionalGeneration, Any]":
    """A checkpoint of this package in float32 on the CPU, ready to answer, and its processor."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration
    from transformers.utils.output_capturing import maybe_install_capturing_hooks

    options = {"dtype": torch.float32, **options}
    model = LlavaForConditionalGeneration.from_pretrained(folder, **options).eval()
    maybe_install_capturing_hooks(model.model.vision_tower)  # else the first forward does: so that it changes nothing
    return model, AutoProcessor.from_pretrained(folder)
