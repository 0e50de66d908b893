"""Load models and their configs."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seeless.errors import MissingExtra, SeelessError, brief, one_line
from seeless.named.adapters import base_of, processor_of, put_on
from seeless.named.errors import UnloadableModel
from seeless.named.originals import refuse_original

TINY, READER = "tiny", "reader"  # the embedded models; where none is named, people look at READER


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer, its processor, and the name it was loaded by."""

    name: str
    model: Any
    processor: Any


def embedded_path(name: str) -> Path | None:
    """The folder of the embedded model of this name, "tiny" or "reader"; None: there is none."""
    from seeless.reader import reader_path
    from seeless.tiny import tiny_path

    paths = {TINY: tiny_path, READER: reader_path}
    return paths[name]() if name in paths else None


def resolve_name(model: str) -> str:
    """The path or hub id to load: the folder of an embedded model, a converted checkpoint for an original one."""
    from seeless import models

    if (folder := embedded_path(model)) is not None:
        return str(folder)
    name = model if os.path.exists(model) else models.converted_name(model)
    if name != model:
        print(f"{model} is the original release; using its conversion {name}", file=sys.stderr)
    return name


def load_config(name: str, **options: Any) -> Any:
    """The `transformers` config of a checkpoint, of an adapter that of its base; no weights are read.

    Args:
        options: which one (`revision`), and where from (`cache_dir`).

    Raises:
        UnloadableModel: there is no such checkpoint.
        UnsupportedModel: its `model_type` has no family.
    """
    from transformers import AutoConfig, PretrainedConfig

    from seeless import models

    if name.startswith((".", "/", "~")) and not os.path.exists(name):
        raise UnloadableModel(f"cannot load {brief(name)}: no such folder")
    _silence_transformers()
    with _refusing(name):
        name = base_of(name, **options) or name
        data = PretrainedConfig.get_config_dict(name, **options)[0]
    refuse_original(name, data)
    if "model_type" not in data:
        raise UnloadableModel(f"cannot load {brief(name)}: it has no config.json with a model_type")
    models.check_model_type(data["model_type"])
    with _refusing(name):
        return AutoConfig.from_pretrained(name, **options)


def names_a_model(name: str) -> bool:
    """Whether a name is an embedded model's, looks like a hub id, is a path, or a `model_type` that `transformers`
    knows."""
    if "/" in name or name in (TINY, READER) or os.path.exists(name):
        return True
    from transformers import CONFIG_MAPPING

    return name in CONFIG_MAPPING


def config_of(name: str) -> Any:
    """The config of a checkpoint as `load_config` reads it, a path to a `config.json`, or the config that
    `transformers` makes for a `model_type` when nothing else is said.

    Raises:
        UnloadableModel: there is no such checkpoint, file or type.
        UnsupportedModel: its `model_type` has no family.
    """
    from transformers import CONFIG_MAPPING

    from seeless import models

    if os.path.exists(name) or "/" in name:
        return load_config(name)
    if name not in CONFIG_MAPPING:
        raise UnloadableModel(f"{brief(name)} is no folder, no config.json and no model_type that transformers knows")
    models.check_model_type(name)
    with _refusing(name):
        return CONFIG_MAPPING[name]()


def load_embedded(name: str) -> LoadedModel:
    """An embedded model, on the CPU.

    Args:
        name: "tiny" or "reader".
    """
    from seeless.reader import load_reader
    from seeless.tiny import load_tiny

    _silence_transformers()
    return LoadedModel(resolve_name(name), *{TINY: load_tiny, READER: load_reader}[name]())


def load_model(
    name: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    processing: dict[str, Any] | None = None,
    **options: Any,
) -> LoadedModel:
    """A checkpoint with its processor: on a GPU as stored, on the CPU in float32, unless told otherwise.

    An adapter comes on its base, unmerged.

    Args:
        device: "cpu", "cuda:1", ...; a GPU if there is one unless told.
        dtype: as `transformers` takes it, "bfloat16" or "auto", say.
        processing: what the processor is loaded with (`min_pixels`, say).
        options: what the model is loaded with (`revision`, `cache_dir`, `attn_implementation`, `device_map`); the first
            two are the processor's, too.

    Raises:
        UnloadableModel: weights or processor cannot be loaded, or are incomplete.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = dtype or (torch.float32 if torch.device(device).type == "cpu" else "auto")
    processor, model = _load(name, chosen, processing or {}, options)
    return LoadedModel(name, model.eval() if "device_map" in options else model.to(device).eval(), processor)


def load_trainable(name: str, half: bool) -> tuple[Any, Any]:
    """Processor and model of a checkpoint, still on the CPU, in float32, or if `half` in bfloat16.

    Raises:
        UnloadableModel: weights or processor cannot be loaded, or are incomplete; or it is an adapter.
    """
    import torch

    if (base := base_of(name)) is not None:
        raise UnloadableModel(
            f"{brief(name)} is an adapter, and training starts from whole models; merge it first (docs/train.md), or "
            f"train a new one on {brief(base)}"
        )
    return _load(name, torch.bfloat16 if half else torch.float32, {}, {})


def _load(name: str, dtype: Any, processing: dict[str, Any], options: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    _silence_transformers()
    both = {key: value for key, value in options.items() if key in ("revision", "cache_dir")}
    load_config(name, **both)  # refuses what cannot work
    with _refusing(name):
        base = base_of(name, **both)
        kept = name if base is None else processor_of(name, base, **both)
        processor = AutoProcessor.from_pretrained(kept, **both, **processing)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            base or name, dtype=dtype, output_loading_info=True, **options
        )
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise UnloadableModel(f"cannot load {brief(name)}: it lacks {len(missing)} weights, {missing[0]} for one")
    if base is None:
        return processor, model
    with _refusing(name):
        return processor, put_on(model, name, **both)


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except SeelessError:
        raise
    except ImportError as error:
        raise MissingExtra(f"cannot load {brief(name)}: {' '.join(str(error).split())}") from error
    except Exception as error:  # whatever is wrong with a checkpoint, it cannot be loaded
        raise UnloadableModel(f"cannot load {brief(name)}: {one_line(error)}") from error


def _silence_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
