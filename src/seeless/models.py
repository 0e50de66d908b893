"""What seeless knows about models: which are supported, what they look like, and which strategies work on them."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from seeless.api import apply, resolved
from seeless.context import Context
from seeless.core.family import Family, Kind, ModelView, unwrap
from seeless.core.pictures import entering
from seeless.core.sizes import dimensions
from seeless.errors import BudgetError, InputError, MissingExtra, SeelessError, UnsupportedModel
from seeless.families import families, family_of, from_outside
from seeless.flops import prefill_cost
from seeless.probing import Probe
from seeless.registry import available, get, strategy_class
from seeless.strategy import Recipe, Strategy

PROBE_TOKENS = 64


@dataclass(frozen=True)
class SupportedModels:
    """One family: `title`, `config.model_type`s, `checkpoints` from original to converted names, and a `note`."""

    title: str
    model_types: tuple[str, ...]
    checkpoints: dict[str, str]
    note: str


@dataclass(frozen=True)
class ModelDescription:
    """A model as seeless sees it.

    Args:
        decoder, tower: `model_type` of the two parts.
        layers, hidden, heads, kv_heads: of the decoder.
        visual_tokens: per image or crop (`per`); None if it depends on the picture's size.
        videos: whether it takes videos of their own, not only as a row of images.
        vision_signal: which attention of the tower ranks tokens where a strategy asks for it.
        anchor: distance of the null token from the first token after the image.
        strategies: name, and why it does not work on this model; None if it works.
    """

    family: str
    model_type: str
    decoder: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    tower: str
    tower_layers: int
    class_token: bool
    visual_tokens: int | None
    per: str
    videos: bool
    vision_signal: str
    anchor: int
    note: str
    strategies: dict[str, str | None]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def supported_models() -> list[SupportedModels]:
    """All families.

    >>> "LLaVA-1.5" in [model.title for model in supported_models()]
    True
    """
    unique = {family.title: family for family in families().values()}
    return [SupportedModels(f.title, f.model_types, dict(f.checkpoints), f.note) for f in unique.values()]


def families_from_outside() -> list[str]:
    """Titles of the families that plug-ins and packages have registered."""
    return [family.title for family in from_outside()]


def converted_name(name: str) -> str:
    """The checkpoint `transformers` loads for the name of an original release; any other name unchanged.

    >>> converted_name("liuhaotian/llava-v1.5-7b")
    'llava-hf/llava-1.5-7b-hf'
    """
    for model in supported_models():
        if name in model.checkpoints:
            return model.checkpoints[name]
    return name


def check_model_type(model_type: str) -> None:
    """Raise `UnsupportedModel` with a list of the supported ones unless some family has this `model_type`."""
    family_of(model_type)


def family_named(model_type: str) -> Family:
    """The family of a `config.model_type`.

    Raises:
        UnsupportedModel: none has it.
    """
    return family_of(model_type)


def skeleton(config: Any) -> nn.Module:
    """The model of a `transformers` config without weights (on the meta device), for questions about its shape.

    Raises:
        UnsupportedModel: no family has its `model_type`.
        MissingExtra: the model is made with a package that is not installed.
    """
    from transformers import AutoModelForImageTextToText

    check_model_type(config.model_type)
    with naming_packages(config.model_type), torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


@contextmanager
def naming_packages(model_type: str) -> Iterator[None]:
    """What `transformers` says of a package that a model needs, in one line.

    Raises:
        MissingExtra: in place of its `ImportError`.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtra(
            f"models of type {model_type!r} cannot be made here: {' '.join(str(error).split())}"
        ) from error


def crop_tokens(model: nn.Module) -> int | None:
    """Visual tokens of one picture as the tower takes it in; None if that depends on the picture's size."""
    return _crop_tokens(_view(model))


def takes_videos(model: nn.Module) -> bool:
    """Whether it takes videos of their own, not only as a row of images."""
    return _view(model).takes_videos


def placeholder(model: nn.Module, kind: Kind = "image") -> int:
    """The id that stands in a prompt for one visual token of images, or of videos.

    Raises:
        InputError: the model takes no videos of their own.
    """
    view = _view(model)
    name = view.family.image_token if kind == "image" else view.family.video_token
    if name is None:
        raise InputError(f"{view.family.title} takes no videos of their own; give their frames as images")
    return int(getattr(view.config, name))


def parts(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules that are the "tower" (two where videos have another), the "projector" (or several) and the "decoder".

    A projector may lie inside the tower (the Qwen models').

    >>> from seeless.tiny import load_tiny
    >>> {part: [type(module).__name__ for module in modules] for part, modules in parts(load_tiny()[0]).items()}
    {'tower': ['CLIPVisionModel'], 'projector': ['LlavaMultiModalProjector'], 'decoder': ['LlamaModel']}
    """
    view = _view(model)
    towers = {id(tower): tower for tower in (view.tower("image"), view.tower("video"))}
    return {"tower": list(towers.values()), "projector": view.projectors, "decoder": [view.language_model]}


def text_flops(model: nn.Module, tokens: int) -> int:
    """Floating-point operations of the prefill of a prompt of so many tokens without a picture (`seeless.flops`)."""
    view = _view(model)
    return prefill_cost(dimensions(view), [[tokens]] * view.depth, [0] * view.depth, [], False).total


def parameter_names(model: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters of each part: "tower", "projector", and "decoder", which is all the rest.

    A projector inside the tower (the Qwen models') counts as projector.

    >>> from seeless.tiny import load_tiny
    >>> {part: len(names) for part, names in parameter_names(load_tiny()[0]).items()}
    {'tower': 87, 'projector': 4, 'decoder': 75}
    """
    view = _view(model)
    projector = {parameter for part in view.projectors for parameter in part.parameters()}
    tower = {*view.tower("image").parameters(), *view.tower("video").parameters()} - projector
    names: dict[str, list[str]] = {"tower": [], "projector": [], "decoder": []}
    for name, parameter in model.named_parameters():
        names["projector" if parameter in projector else "tower" if parameter in tower else "decoder"].append(name)
    return names


def check_strategy(model: nn.Module, strategy: Strategy | Recipe) -> None:
    """Raise what would come up in the first forward if `strategy` cannot work on `model` (or on its skeleton).

    Raises:
        UnsupportedModel: the model, or a signal of it that the strategy needs, cannot be had.
        BudgetError: a layer outside the model, or none at all to act before; a budget or field it cannot take.
    """
    strategy = resolved(strategy, model)
    apply(model, strategy).remove()
    view = _view(model)
    if not any(part.layers(view.depth) for part in strategy.parts()):
        raise BudgetError(
            f"{strategy.name} would leave this model as it is: it acts before none of its layers 1 to {view.depth - 1}"
        )
    tokens = _crop_tokens(view) or PROBE_TOKENS
    for part in strategy.parts():
        _check_part(view, part, tokens)


def _check_part(view: ModelView, strategy: Strategy, tokens: int) -> None:
    side = round(tokens**0.5)
    memory: dict = {}
    for stage_index, layer in enumerate(strategy.layers(view.depth)):
        context = Context(
            layer=layer,
            stage_index=stage_index,
            n_keep=strategy.count(stage_index, tokens),
            index=torch.arange(tokens)[None],
            n_original=tokens,
            grid=(1, side, side) if side * side == tokens else (1, 1, tokens),
            memory=memory,
            sources=Probe(view, tokens, strategy),
            axes=3 if view.family.mrope else 1,
        )
        try:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():  # it may draw random numbers
                warnings.simplefilter("ignore")  # what made-up numbers make it say
                prepared = strategy.prepare(replace(context, stage_index=0, layer=0))
                strategy.reduce(replace(context, prepared=prepared))
        except (UnsupportedModel, BudgetError):
            raise
        except (Exception, SystemExit):  # made-up numbers may surprise a strategy; only its refusal counts here
            return


def readable_layers(model: nn.Module) -> list[int]:
    """The decoder layers whose attention a strategy can read: all that have any, but for those behind the last layer
    before which tokens can leave."""
    view = _view(model)
    return [i for i in range(view.depth) if view.attends(i) and min(i + 1, view.depth - 1) <= view.last_cut]


def decoder_depth(model: nn.Module) -> int:
    """How many layers the decoder has."""
    return _view(model).depth


def reads_tower(model: nn.Module) -> bool:
    """Whether the attention of the vision tower can be read."""
    return bool(_view(model).family.tower_layers)


def describe(model: nn.Module, strategies: Sequence[str] | None = None) -> ModelDescription:
    """What a model looks like and which strategies work on it.

    Args:
        strategies: those to try; all there are unless told.

    Raises:
        UnsupportedModel: nothing works on it.

    >>> from seeless.tiny import load_tiny
    >>> description = describe(load_tiny()[0])
    >>> description.layers, description.visual_tokens, description.strategies["vispruner"]
    (8, 144, None)
    """
    view = _view(model)
    size = dimensions(view)
    text_config: Any = view.language_model.config
    return ModelDescription(
        family=view.family.title,
        model_type=view.config.model_type,
        decoder=text_config.model_type,
        layers=view.depth,
        hidden=size.hidden,
        heads=size.heads,
        kv_heads=size.kv_heads,
        tower=view.config.vision_config.model_type,
        tower_layers=size.tower_layers,
        class_token=view.has_class_token,
        visual_tokens=_crop_tokens(view),
        per="crop" if view.family.packer is not None or view.family.runs else "image",
        videos=view.takes_videos,
        vision_signal=_signal(view),
        anchor=view.family.anchor,
        note=view.family.note,
        strategies={name: _reason_against(model, name) for name in (available() if strategies is None else strategies)},
    )


def describe_config(config: Any) -> ModelDescription:
    """`describe` from the config alone, without weights."""
    return describe(skeleton(config))


def _view(model: nn.Module) -> ModelView:
    inner: Any = unwrap(model)
    return ModelView(inner, family_of(inner.config.model_type))


def _crop_tokens(view: ModelView) -> int | None:
    tower = view.config.vision_config
    if view.family.tokens is not None:
        return getattr(view.config, view.family.tokens)
    if (
        not view.family.tower_layers
        or view.family.grids
        or not hasattr(tower, "image_size")
        or tower.model_type == "pixtral"
    ):
        return None
    height, width = _pair(tower.image_size)
    patch_height, patch_width = _pair(tower.patch_size)
    merge = view.merge or 1
    full = getattr(view.config, "vision_feature_select_strategy", None) == "full" and view.merge is None
    return (height // patch_height // merge) * (width // patch_width // merge) + int(view.has_class_token and full)


def _signal(view: ModelView) -> str:
    if not view.family.tower_layers:
        return "none: the tower is not read"
    return "class token's row" if view.has_class_token else "mean received attention (no class token)"


def _pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _reason_against(model: nn.Module, name: str) -> str | None:
    if strategy_class(name).parts is not Strategy.parts:
        return None  # made of other strategies: it works where they do
    try:
        try:
            strategy = get(name, keep=0.25)
        except SeelessError:  # several stages: its own budgets
            strategy = get(name)
        check_strategy(model, strategy)
    except SeelessError as error:
        return str(error)
    return None


def visual_features(output: Any) -> Any:
    """Of what a model's `get_image_features` or `get_video_features` gives, in any release, the features alone: one
    tensor `[pictures, ..., dim]`, or one for each."""
    return entering(output) if hasattr(output, "pooler_output") else output
