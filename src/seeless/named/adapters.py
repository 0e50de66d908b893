"""Adapters of PEFT (LoRA, say): which model they were trained on, and how they are put on it."""

import os
import warnings
from typing import Any

from seeless.errors import MissingExtra, brief
from seeless.jsonl import NoJSON, decode
from seeless.named.errors import UnloadableModel

BASE = "base_model_name_or_path"
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
QUIETLY = {f"_raise_exceptions_for_{what}": False for what in ("gated_repo", "missing_entries", "connection_errors")}


def base_of(name: str, **options: Any) -> str | None:
    """The checkpoint that an adapter was trained on; None if `name` is no adapter.

    Args:
        name: a folder or hub id, or a `config.json`, which is none.
        options: which one (`revision`), and where from (`cache_dir`).

    Raises:
        UnloadableModel: it does not say which.
    """
    from transformers.utils import find_adapter_config_file

    if os.path.isfile(name):
        return None
    if (file := find_adapter_config_file(name, **options)) is None:
        return None
    try:
        with open(file, "rb") as opened:
            base = decode(opened.read(), numbers_only=False).get(BASE)
    except (OSError, NoJSON, AttributeError) as error:
        raise UnloadableModel(f"cannot load the adapter {brief(name)}: {file} cannot be read") from error
    if not isinstance(base, str) or not base:
        raise UnloadableModel(
            f"cannot load the adapter {brief(name)}: {file} has no {BASE}; write the model's name or folder into it"
        )
    return base


def processor_of(name: str, base: str, **options: Any) -> str:
    """Where the processor is that an adapter was trained with: beside it, else beside its base."""
    from transformers.utils import cached_file

    own = any(cached_file(name, file, **options, **QUIETLY) for file in PROCESSORS)
    return name if own else base


def put_on(model: Any, name: str, **options: Any) -> Any:
    """The model with an adapter on it, a `peft.PeftModel`, unmerged.

    Raises:
        MissingExtra: PEFT is not installed.
        UnloadableModel: the adapter's weights are not those that its places in this model take.
    """
    try:
        from peft import PeftModel, get_peft_model_state_dict
        from peft.utils import load_peft_weights
    except ImportError as error:
        raise MissingExtra(f'{brief(name)} is an adapter, which needs PEFT: pip install "seeless[train]"') from error
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            adapted = PeftModel.from_pretrained(model, name, **options)
        except UserWarning as warning:
            raise UnloadableModel(_misfit(name, model)) from warning
    if len(load_peft_weights(name, device="cpu", **options)) != len(get_peft_model_state_dict(adapted)):
        raise UnloadableModel(_misfit(name, model))
    return adapted


def _misfit(name: str, model: Any) -> str:
    return (
        f"cannot load the adapter {brief(name)}: its weights do not belong to {brief(model.name_or_path)}; it was "
        f"trained on another model, or on another form of it; name that in {BASE} of its adapter_config.json"
    )
