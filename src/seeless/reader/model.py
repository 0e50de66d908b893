"""Load the embedded model that has the papers' shape: a LLaVA with 576 visual tokens, shipped in the package."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeless.tiny.model import load_embedded_llava

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration


def reader_path() -> Path:
    """The folder of the embedded checkpoint, usable wherever a model path is expected."""
    return Path(__file__).with_name("checkpoint")


def load_reader(**options: Any) -> "tuple[LlavaForConditionalGeneration, Any]":
    """The embedded model with 24x24 visual tokens in float32 on the CPU, ready to answer, and its processor.

    Args:
        options: passed on to `from_pretrained` (`attn_implementation="eager"`, say).

    >>> model, processor = load_reader()
    >>> model.config.image_seq_length, model.config.text_config.num_hidden_layers
    (576, 8)
    """
    return load_embedded_llava(reader_path(), **options)
