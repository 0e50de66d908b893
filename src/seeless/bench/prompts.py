"""Prompts to time a model with: pictures or videos of noise between words that mean nothing, without a tokenizer."""

import inspect
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import seeless as sl
from seeless import models
from seeless.bench.videos import layouts, video
from seeless.errors import one_line

WORDS_BEFORE = 35  # tokens of text before the pictures, as many as LLaVA's usual system prompt has
PLACEHOLDERS = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
START, END = "vision_start_token_id", "vision_end_token_id"  # in the config of models that put them round a picture


@dataclass(frozen=True)
class Workload:
    """What one request of a batch asks for, all alike.

    Args:
        batch: requests in a batch.
        picture: height and width in pixels.
        pictures: in one request.
        frames: of each, where they are videos; 0: they are pictures.
        text: tokens of text in the prompt.
        answer: tokens of the answer.
    """

    batch: int
    picture: tuple[int, int]
    pictures: int
    frames: int
    text: int
    answer: int


def image_processor(settings: dict[str, Any]) -> Any:
    """An image processor from its `preprocessor_config.json`."""
    from transformers import AutoImageProcessor

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(settings))
        return AutoImageProcessor.from_pretrained(folder)


@dataclass(frozen=True)
class Shown:
    """What stands in every request of a batch.

    Args:
        ids: placeholders of one picture or video, with the tokens that this model has around them.
        pixels: the model's arguments with all pictures or videos of the batch.
    """

    ids: list[int]
    pixels: dict[str, torch.Tensor]


@torch.no_grad()
def make_inputs(model: Any, processor: Any, workload: Workload) -> dict[str, torch.Tensor]:
    """What `generate` takes.

    Raises:
        InputError: the model makes no visual token of such a picture or video, or cannot look at it.
        UnsupportedModel: it takes no videos, or in a form that is not known here.
    """
    from PIL import Image

    if workload.frames:
        return _with_video(model, workload)
    height, width = workload.picture
    noise = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(noise.numpy())
    taken = set(inspect.signature(_base(model).get_image_features).parameters)
    one = _pixels(processor, [picture], taken, model)
    tokens = _looked_at(_base(model).get_image_features, one, f"a picture of {height} x {width} pixels")
    pixels = _pixels(processor, [picture] * workload.pictures * workload.batch, taken, model)
    return _prompt(model, workload, Shown(_between(model, [tokens], models.placeholder(model)), pixels))


def _with_video(model: Any, workload: Workload) -> dict[str, torch.Tensor]:
    one = video(model, workload.frames, workload.picture)
    tokens = _looked_at(_base(model).get_video_features, one, f"a video of {workload.frames} frames")
    pixels = {name: torch.cat([value] * workload.pictures * workload.batch) for name, value in one.items()}
    slices = int(one["video_grid_thw"][0, 0]) if "video_grid_thw" in one else 1
    reasons = []
    for runs in layouts(slices, tokens):
        inputs = _prompt(model, workload, Shown(_between(model, runs, models.placeholder(model, "video")), pixels))
        try:
            _base(model)(**inputs, use_cache=False)
        except (RuntimeError, ValueError, IndexError, StopIteration) as error:
            reasons.append(one_line(error))
        else:
            return inputs
    raise sl.InputError(f"the model cannot look at a video of {workload.frames} frames: {'; '.join(reasons)}")


def _base(model: Any) -> Any:
    return model.model if hasattr(model, "model") else model


def _looked_at(encode: Any, given: dict[str, torch.Tensor], what: str) -> int:
    """How many visual tokens the model makes of one picture or video."""
    try:
        features = encode(**given)
    except (RuntimeError, ValueError, IndexError) as error:
        raise sl.InputError(f"the model cannot look at {what}: {error}") from error
    features = models.visual_features(features)
    each = [features] if isinstance(features, torch.Tensor) else features  # a tensor, or one for each crop
    if not (tokens := sum(x.shape[:-1].numel() for x in each)):
        raise sl.InputError(f"the model makes no visual token of {what}")
    return tokens


def _between(model: Any, runs: list[int], token: int) -> list[int]:
    """Runs of placeholders, each between what the model has around one."""
    start, end = ([getattr(model.config, name)] if hasattr(model.config, name) else [] for name in (START, END))
    return [one for run in runs for one in (*start, *[token] * run, *end)]


def _prompt(model: Any, workload: Workload, shown: Shown) -> dict[str, torch.Tensor]:
    config = model.config
    special = {getattr(config, name, None) for name in (START, END, *PLACEHOLDERS)}
    known = min(1000, model.get_input_embeddings().num_embeddings)
    words = [word for word in range(3, known) if word not in special]
    generator = torch.Generator().manual_seed(0)
    text = [words[i] for i in torch.randint(len(words), (workload.text,), generator=generator).tolist()]
    before = min(WORDS_BEFORE, workload.text // 2)
    ids = torch.tensor([[*text[:before], *shown.ids * workload.pictures, *text[before:]]] * workload.batch)
    ids = ids.to(model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **shown.pixels}
    types = ids == models.placeholder(model, "video" if workload.frames else "image")
    if "mm_token_type_ids" in inspect.signature(_base(model).forward).parameters:
        inputs["mm_token_type_ids"] = types.int() * (2 if workload.frames else 1)
    elif "token_type_ids" in inspect.signature(_base(model).forward).parameters:
        inputs["token_type_ids"] = types.long()
    return inputs


def _pixels(processor: Any, pictures: list[Any], taken: set[str], model: Any) -> dict[str, torch.Tensor]:
    """What the model's `get_image_features` takes of what the processor makes of pictures."""
    made = processor(images=pictures, return_tensors="pt")
    given = {name: torch.as_tensor(value) for name, value in made.items() if name in taken}
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        for name, value in given.items()
    }
