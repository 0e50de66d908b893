"""`--model_args`: what they mean, and what to say about those that mean nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import seeless as sl
from seeless.errors import did_you_mean
from seeless.named.knobs import Values, build_strategies
from seeless.named.strategies import GUEST, choose, guest_names
from seeless.strategy import Recipe

LOADING = ("revision", "dtype", "attn_implementation", "device_map")
PIXELS = ("min_pixels", "max_pixels")
OTHERS = ("pretrained", "strategy", "plugin", "max_frames", "max_num", "system_prompt")
PREFIX = "vtr_"
UNTOUCHED = ("none", "baseline")
ALIASES = {"max_num_frames": "max_frames", "torch_dtype": "dtype"}
TEMPLATE = "prompts are written by the checkpoint's own chat template"
LOADER = "models are loaded by transformers, unmodified"
# What PriorTR's wrappers take and what has no meaning here: values that change nothing, and why.
WITHOUT_MEANING: dict[str, tuple[tuple[str, ...], str]] = {
    "conv_template": (("vicuna_v1",), TEMPLATE),
    "model_type": (("priortr",), LOADER),
    "customized_config": (("none",), "strategies are configured by their own fields"),
    "truncate_context": (("true", "false"), "contexts are never cut"),
    "use_cache": (("true",), "without a KV cache there is nothing to save in decoding"),
    "trust_remote_code": (("false",), LOADER),
}


@dataclass(frozen=True)
class Door:
    """What a model id stands for.

    Args:
        strategy: what runs unless told.
        vtr: whether names mean PriorTR's versions first, and fields may have the prefix `vtr_`.
        defaults: of other arguments.
    """

    strategy: str = "none"
    vtr: bool = False
    defaults: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Arguments:
    """Arguments of a model, sorted by what they are for.

    Args:
        pretrained: as given.
        strategy: None leaves the model untouched.
        loading, processing: of `named.checkpoints.load_model`.
        images: what the image processor is told about every picture (`max_num`, by its name there).
        max_frames: of a video file.
        system_prompt: the system turn of every prompt; a file's name stands for its text.
    """

    pretrained: str
    strategy: sl.Strategy | Recipe | None
    loading: dict[str, Any]
    processing: dict[str, Any]
    images: dict[str, Any]
    max_frames: int
    system_prompt: str | None


def read_arguments(given: Mapping[str, Any], door: Door) -> Arguments:
    """Sort the arguments of a model, plug-ins imported before; values are as lmms-eval's parser makes them.

    Raises:
        BudgetError: an argument that is unknown, missing, or has no meaning here, or a value that is not possible.
        UnknownStrategy: no such strategy.
    """
    texts = {name: _text(value) for name, value in given.items() if _text(value) != ""}
    for name, text in list(texts.items()):
        if name in WITHOUT_MEANING:
            harmless, reason = WITHOUT_MEANING[name]
            if texts.pop(name).lower() not in harmless:
                raise sl.BudgetError(f"{name}={text} has no meaning here: {reason}; leave it out")
    values = {name: str(value) for name, value in door.defaults.items()}
    values |= {ALIASES.get(name, name): text for name, text in texts.items()}
    known = {name: values.pop(name) for name in (*LOADING, *PIXELS, *OTHERS) if name in values}
    if "pretrained" not in known:
        raise sl.BudgetError(
            "pretrained is missing: the hub id or folder of a checkpoint, pretrained=tiny or pretrained=reader"
        )
    if door.vtr:
        values = {name.removeprefix(PREFIX): text for name, text in values.items()}
        known |= {"strategy": values.pop("strategy")} if "strategy" in values else {}
    name = known.get("strategy", door.strategy)
    return Arguments(
        pretrained=known["pretrained"],
        strategy=_strategy(_full_name(name, door), values),
        loading={name: known[name] for name in LOADING if name in known},
        processing={name: _whole(name, known[name]) for name in PIXELS if name in known},
        images={"max_patches": _whole("max_num", known["max_num"])} if "max_num" in known else {},
        max_frames=_whole("max_frames", known.get("max_frames", "32")),
        system_prompt=known.get("system_prompt"),
    )


def check_processing(arguments: Arguments, processor: Any) -> None:
    """Raise `BudgetError` for arguments that the image processor of the checkpoint has no use for.

    It would leave them aside without a word.
    """
    names = {**dict.fromkeys(arguments.processing), **dict.fromkeys(arguments.images)}
    takes = getattr(type(processor.image_processor), "valid_kwargs", None)
    for name in names:
        if name not in getattr(takes, "__annotations__", {}):
            given = "max_num" if name == "max_patches" else name
            raise sl.BudgetError(f"{given} means nothing to {type(processor.image_processor).__name__}; leave it out")


def _full_name(name: str, door: Door) -> str:
    return GUEST + name if door.vtr and GUEST + name in guest_names() else name


def _strategy(name: str, values: Mapping[str, str]) -> sl.Strategy | Recipe | None:
    if name in UNTOUCHED:
        for each in values:
            hint = _near(each, []) or "fields belong to a strategy; give one with strategy="
            raise sl.BudgetError(f"strategy={name} leaves the model as it is and takes no {each!r}; {hint}")
        return None
    fields = [knob.name for knob in choose(name).knobs()]
    for each in values:
        if each not in fields and (hint := _near(each, fields)) and not did_you_mean(each, fields, cutoff=0.6):
            raise sl.BudgetError(f"there is no argument {each!r}; {hint}")
    texts: Values = {each: _listed(text) for each, text in values.items()}
    return build_strategies([name], texts)[0]


def _near(name: str, fields: list[str]) -> str:
    return did_you_mean(name, [*LOADING, *PIXELS, *OTHERS, *fields], cutoff=0.7)


def _text(value: Any) -> str:
    """A value as it was typed; lmms-eval's parser reads -1 as -1.0.

    >>> _text(0.25), _text(-1.0), _text(True), _text(None)
    ('0.25', '-1', 'True', 'none')
    """
    if isinstance(value, float) and value < 0 and value.is_integer():
        return str(int(value))
    return "none" if value is None else str(value).strip()


def _listed(text: str) -> str:
    """A field's text with commas in lists, which may come in brackets, or with semicolons between numbers.

    >>> _listed("[8;16;24]"), _listed("[0.5, 0.25]"), _listed(".5;.25"), _listed("why; because")
    ('8,16,24', '0.5, 0.25', '.5,.25', 'why; because')
    """
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    items = inside.replace(",", ";").split(";")
    return inside.replace(";", ",") if inside != text or all(map(_is_number, items)) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _whole(name: str, text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise sl.BudgetError(f"{name}={text} is not possible; it takes a whole number from 1 on")
    return int(text)
