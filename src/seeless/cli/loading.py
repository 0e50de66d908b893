"""Load models, their configs, and pictures."""

import io
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

import seeless as sl
import seeless.tiny
from seeless import models
from seeless.cli.console import notice
from seeless.cli.errors import UnloadableModel, UnreadableImage, one_line

URL_TIMEOUT = 30


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer, its processor, and the name it was loaded by."""

    name: str
    model: Any
    processor: Any


def resolve_name(model: str | None) -> str:
    """The path or hub id to load: the embedded model without a name, a converted checkpoint for an original one."""
    if model is None:
        return str(seeless.tiny.tiny_path())
    name = model if Path(model).exists() else models.converted_name(model)
    if name != model:
        notice(f"{model} is the original release; using its conversion {name}")
    return name


def load_config(name: str) -> Any:
    """The `transformers` config of a checkpoint; no weights are read.

    Raises:
        UnloadableModel: there is no such checkpoint.
        UnsupportedModel: its `model_type` has no family.
    """
    from transformers import AutoConfig, PretrainedConfig

    if name.startswith((".", "/", "~")) and not Path(name).exists():
        raise UnloadableModel(f"cannot load {name!r}: no such folder")
    _silence_transformers()
    with _refusing(name):
        data = PretrainedConfig.get_config_dict(name)[0]
    if "model_type" not in data:
        raise UnloadableModel(f"cannot load {name!r}: it has no config.json with a model_type")
    models.check_model_type(data["model_type"])
    with _refusing(name):
        return AutoConfig.from_pretrained(name)


def load_embedded() -> LoadedModel:
    """The embedded model, on the CPU."""
    _silence_transformers()
    return LoadedModel(resolve_name(None), *seeless.tiny.load_tiny())


def load_model(name: str) -> LoadedModel:
    """A checkpoint with its processor: on a GPU as stored, on the CPU in float32.

    Raises:
        UnloadableModel: weights or processor cannot be loaded, or are incomplete.
    """
    import torch

    gpu = torch.cuda.is_available()
    processor, model = _load(name, "auto" if gpu else torch.float32)
    return LoadedModel(name, model.to("cuda" if gpu else "cpu").eval(), processor)


def load_trainable(name: str, half: bool) -> tuple[Any, Any]:
    """Processor and model of a checkpoint, still on the CPU, in float32, or if `half` in bfloat16.

    Raises:
        UnloadableModel: weights or processor cannot be loaded, or are incomplete.
    """
    import torch

    return _load(name, torch.bfloat16 if half else torch.float32)


def _load(name: str, dtype: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    _silence_transformers()
    with _refusing(name):
        processor = AutoProcessor.from_pretrained(name)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, output_loading_info=True)
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise UnloadableModel(f"cannot load {name!r}: it lacks {len(missing)} weights, {missing[0]} for one")
    return processor, model


def load_image(source: str) -> Image.Image:
    """A picture from a file or an http(s) address, upright and in RGB.

    Raises:
        UnreadableImage: it is missing, cannot be fetched, or is no picture.
    """
    try:
        if source.startswith(("http://", "https://")):
            request = urllib.request.Request(source, headers={"User-Agent": f"seeless/{sl.__version__}"})
            with urllib.request.urlopen(request, timeout=URL_TIMEOUT) as answer:
                data: Any = io.BytesIO(answer.read())
        else:
            data = source
        with Image.open(data) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, HTTPException, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise UnreadableImage(f"cannot read the image {source!r}: {reason}") from error


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever is wrong with a checkpoint, it cannot be loaded
        raise UnloadableModel(f"cannot load {name!r}: {one_line(error)}") from error


def _silence_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
