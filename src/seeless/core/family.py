"""What a family must say about its models, and how its modules are found on one."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from seeless.errors import UnsupportedModel


@dataclass(frozen=True)
class Family:
    """Names, not code: where the parts of a vision-language model are.

    Args:
        title: what people call these models.
        model_types: `config.model_type` of the models.
        base: attribute of the model that receives `input_ids` and `pixel_values`.
        language_model, tower, projector: attributes of the base.
        layers, rotary, norm, attention: attributes of the language model, and of its layers.
        tower_layers: path from the tower to its layers; the first that exists.
        class_token_towers: `vision_config.model_type` of towers whose first token is a class token.
        packer: method of the base that lays the crops of an image out as one sequence, if it has one.
        image_token: attribute of the config with the id of the placeholder.
        anchor: distance of the null token from the first token after the image.
        checkpoints: names of the original release and of the converted checkpoint that `transformers` loads.
        note: anything a user should know, shown by `seeless info`.
    """

    title: str
    model_types: tuple[str, ...]
    base: str = "model"
    language_model: str = "language_model"
    tower: str = "vision_tower"
    projector: str = "multi_modal_projector"
    layers: str = "layers"
    rotary: str = "rotary_emb"
    norm: str = "input_layernorm"
    attention: str = "self_attn"
    tower_layers: tuple[str, ...] = ("encoder.layers", "vision_model.encoder.layers")
    class_token_towers: tuple[str, ...] = ("clip_vision_model",)
    packer: str | None = None
    image_token: str = "image_token_id"
    anchor: int = 0
    checkpoints: dict[str, str] = field(default_factory=dict)
    note: str = ""


def unwrap(model: nn.Module) -> nn.Module:
    """The `transformers` model inside `torch.compile`, DDP or PEFT wrappers."""
    while True:
        if "_orig_mod" in model._modules:
            model = model._modules["_orig_mod"]  # type: ignore[assignment]
        elif type(model).__name__ in ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel"):
            model = model.module  # type: ignore[assignment]
        elif callable(getattr(model, "get_base_model", None)):
            model = model.get_base_model()  # type: ignore[operator]
        else:
            return model


def _follow(module: nn.Module, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)  # type: ignore[assignment]
        if module is None:
            return None
    return module


class ModelView:
    """The parts of one model, found by its family's names.

    Raises:
        UnsupportedModel: a part is missing, or the model has a feature that cannot be reduced correctly.
    """

    def __init__(self, model: nn.Module, family: Family) -> None:
        self.model, self.family = model, family
        self.config: Any = model.config
        base = model if _follow(model, family.language_model) is not None else _follow(model, family.base)
        if base is None:
            raise UnsupportedModel(f"{type(model).__name__} has no {family.base!r}; is it a {family.title} model?")
        self.base: Any = base
        self.language_model: Any = self._part(base, family.language_model)
        if not hasattr(self.language_model, family.layers):  # a causal LM with a head instead of the bare decoder
            self.language_model = self._part(self.language_model, "model")
        self.layers: Any = self._part(self.language_model, family.layers)
        self.rotary: Any = self._part(self.language_model, family.rotary)
        self.tower: Any = self._part(base, family.tower)
        self.projector: Any = self._part(base, family.projector)
        self._refuse_sliding_windows()
        self._refuse_compiled_layers()

    def _part(self, owner: nn.Module, path: str) -> Any:
        part = _follow(owner, path)
        if part is None:
            raise UnsupportedModel(
                f"{type(owner).__name__} has no {path!r}, which every {self.family.title} model of the supported "
                "transformers versions (5.17 to 5.23) has"
            )
        return part

    def _refuse_sliding_windows(self) -> None:
        config = self.language_model.config
        kinds = getattr(config, "layer_types", None)
        sliding = getattr(config, "sliding_window", None) is not None if kinds is None else False
        if sliding or (kinds is not None and any(kind != "full_attention" for kind in kinds)):
            raise UnsupportedModel(
                f"the decoder of this {self.family.title} model uses sliding-window attention "
                f"(sliding_window={getattr(config, 'sliding_window', None)}); dropping tokens would move the window. "
                "Load the checkpoint with text_config.sliding_window=None if its context fits"
            )

    def _refuse_compiled_layers(self) -> None:
        if any(layer._compiled_call_impl is not None for layer in self.layers):
            raise UnsupportedModel(
                "the decoder layers are compiled one by one, so hooks on them do not run; "
                "compile the whole model with torch.compile(model) instead"
            )

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return min(len(self.layers), self.language_model.config.num_hidden_layers)

    @cached_property
    def tower_layers(self) -> Any:
        for path in self.family.tower_layers:
            if (layers := _follow(self.tower, path)) is not None:
                return layers
        raise UnsupportedModel(f"{type(self.tower).__name__} has none of {self.family.tower_layers}")

    @property
    def has_class_token(self) -> bool:
        return self.config.vision_config.model_type in self.family.class_token_towers

    @property
    def image_token(self) -> int:
        for name in (self.family.image_token, "image_token_index"):
            if (token := getattr(self.config, name, None)) is not None:
                return token
        raise UnsupportedModel(f"{type(self.config).__name__} names no {self.family.image_token}")
