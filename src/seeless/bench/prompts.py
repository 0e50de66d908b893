"""Prompts to time a model with: drawn pictures between words that mean nothing, made without a tokenizer."""

import inspect
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import seeless as sl
from seeless import models

WORDS_BEFORE = 35  # tokens of text before the pictures, as many as LLaVA's usual system prompt has
START, END = "vision_start_token_id", "vision_end_token_id"  # in the config of models that put them round a picture


@dataclass(frozen=True)
class Workload:
    """What one request of a batch asks for, all alike.

    Args:
        batch: requests in a batch.
        picture: height and width in pixels.
        pictures: in one request.
        text: tokens of text in the prompt.
        answer: tokens of the answer.
    """

    batch: int
    picture: tuple[int, int]
    pictures: int
    text: int
    answer: int


def image_processor(settings: dict[str, Any]) -> Any:
    """An image processor from its `preprocessor_config.json`."""
    from transformers import AutoImageProcessor

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(settings))
        return AutoImageProcessor.from_pretrained(folder)


@torch.no_grad()
def make_inputs(model: Any, processor: Any, workload: Workload) -> dict[str, torch.Tensor]:
    """What `generate` takes.

    Raises:
        InputError: the model makes no visual token of such a picture, or cannot look at it.
    """
    from PIL import Image

    height, width = workload.picture
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=generator)
    picture = Image.fromarray(noise.numpy())
    base = model.model if hasattr(model, "model") else model
    taken = set(inspect.signature(base.get_image_features).parameters)
    one = _pixels(processor, [picture], taken, model)
    try:
        tokens = _count(base.get_image_features(**one))
    except (RuntimeError, ValueError, IndexError) as error:
        raise sl.InputError(f"the model cannot look at a picture of {height} x {width} pixels: {error}") from error
    if not tokens:
        raise sl.InputError(f"the model makes no visual token of a picture of {height} x {width} pixels")
    config, token = model.config, models.placeholder(model)
    shown = [token] * tokens
    if hasattr(config, START):
        shown = [getattr(config, START), *shown, getattr(config, END)]
    special = {token, *(getattr(config, name, None) for name in (START, END, "video_token_id", "video_token_index"))}
    known = min(1000, model.get_input_embeddings().num_embeddings)
    words = [word for word in range(3, known) if word not in special]
    text = [words[i] for i in torch.randint(len(words), (workload.text,), generator=generator).tolist()]
    before = min(WORDS_BEFORE, workload.text // 2)
    ids = torch.tensor([[*text[:before], *shown * workload.pictures, *text[before:]]] * workload.batch)
    ids = ids.to(model.device)
    pixels = _pixels(processor, [picture] * workload.pictures * workload.batch, taken, model)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}
    if "mm_token_type_ids" in inspect.signature(base.forward).parameters:
        inputs["mm_token_type_ids"] = (ids == token).int()
    elif "token_type_ids" in inspect.signature(base.forward).parameters:
        inputs["token_type_ids"] = (ids == token).long()
    return inputs


def _pixels(processor: Any, pictures: list[Any], taken: set[str], model: Any) -> dict[str, torch.Tensor]:
    """What the model's `get_image_features` takes of what the processor makes of pictures."""
    made = processor(images=pictures, return_tensors="pt")
    given = {name: torch.as_tensor(value) for name, value in made.items() if name in taken}
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        for name, value in given.items()
    }


def _count(features: Any) -> int:
    """Tokens of the features of one picture: a tensor, or one for each crop."""
    features = getattr(features, "pooler_output", features)
    each = [features] if isinstance(features, torch.Tensor) else features
    return sum(x.shape[:-1].numel() for x in each)
