"""What a family must say about its models, and how its modules are found on one."""

import inspect
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, get_args, get_origin

import torch
from torch import nn

from seeless.core.host import TESTED, version
from seeless.core.layer_kinds import LayerKinds
from seeless.core.rotary import Rotary
from seeless.core.tower_parts import TowerParts, follow
from seeless.errors import UnsupportedModel, did_you_mean

Kind = Literal["image", "video"]
Merged = Literal["blocks", "consecutive"]
Crops = Literal["joined", "marked", "opened", "numbered", "told"]


@dataclass(frozen=True)
class Family:
    """Names, not code: where the parts of a vision-language model are.

    Args:
        title: what people call these models.
        model_types: `config.model_type` of the models.
        base: attribute of the model that receives `input_ids` and `pixel_values`.
        language_model: attribute of the base.
        tower: attribute of the base.
        projector: attribute of the base.
        video_tower: the tower of videos, if it is another one.
        layers: attribute of the language model.
        rotary: attribute of the language model.
        final_norm: attribute of the language model.
        rotary_layers: attribute of its config with the layers that turn queries and keys by `rotary`; None: all.
        feed_forward: attribute of a decoder layer.
        tower_layers: path from the tower to its layers; the first that exists. Empty: the tower is not read, as if it
            were a box that gives features, and its operations are not counted.
        tower_readers: attribute of the tower with a list of modules that take in what layers before the last give.
        projectors: attributes of the base with lists of all projectors, where `projector` is one of several.
        feeding: attributes of the config that say which layers of the tower give what enters before which of the
            decoder: pairs of both; one of the tower; and those of the decoder that get what that one gives. All of it
            is made of whole windows of patches, and nothing of a picture stands among the embeddings.
        class_token_towers: `vision_config.model_type` of towers whose first token is a class token.
        merge: path in the config to the patches per side that make one token, or to that number's inverse.
        video_merge: the same for the frames of videos, or their number itself, where the model pools them after the
            tower.
        merged_frames: of how many frames of a video the model makes one behind the tower's layers, or the path in the
            config to that number.
        frames_attend: whether patches of those frames see each other in the tower.
        left_out: argument of the base that says of every token of the videos whether it stays (True), where a processor
            leaves some out.
        tokens: attribute of the config with the number of tokens per picture, where that decides the merge.
        merged: whether a token's patches are a square "blocks" of the picture, or stand "consecutive" in the tower.
        projected: whether the projector takes in one vector per token; else `vision_features` are what it gives.
        windows: whether the tower orders its tokens by attention windows (`vision_config.window_size`).
        grids: argument of `get_image_features` ("image") and `get_video_features` ("video") with the patch grid
            (frames, height, width) of everything, or (height, width) of every picture and frame, which all stand alone;
            or those of a picture as a whole and of its crops, (height, width, height, width) in tokens, the latter 0 if
            there are none; empty if every picture has the size the tower's config names.
        padded: whether the tower takes a batch of pictures, each filled up at its end to the longest's patches.
        merging_layer: attribute of `vision_config` with the tower layer after which the tower itself makes one patch of
            four, if it does.
        sizes: argument with the height and width of pictures in pixels, for towers that take any size.
        places: as `grids`, with the column and row of every patch, row after row of each picture, -1 on padding behind
            them, for towers that take pictures of several sizes padded to one length.
        frames: beside `places` of videos, the argument with how many frames each has.
        packer: method of the base that lays the crops of an image out as one sequence, if it has one.
        unresampled: arguments with which the packer does not resample its canvas.
        runs: whether one image is one unbroken run of placeholders, however many crops it was cut into.
        overview: the crop that shows the whole picture, 0 or -1.
        crops: how one knows the crops of a picture: they are "joined" to one image, or each is one of its own and the
            one that shows the whole is "marked" by the token before it, or the first one "opened" by it, or all of them
            "numbered", each by the one token between it and the one before, or crops are "told" of by the text before
            them.
        crops_told: what that text says before the first crop.
        image_token: attribute of the config with the id of an image's placeholders.
        video_token: attribute of the config with the id of a video's, None if the model takes no videos of their own.
        mrope: whether positions have three axes (time, height, width).
        canvas: whether tokens of text around and inside a picture have positions that depend on it, so that it cannot
            be put into another prompt.
        layer_inputs: argument of the language model with something of its own for every token, `[batch, seq, ...]`, and
            of its layers with their part of it, if they take such.
        modal_experts: modules of `feed_forward` with the experts of text and of visual tokens, where these are others.
        injected: arguments of the language model with visual features that enter between its layers, `[visual, dim]`,
            and with the mask of visual tokens. The features come as a list, one tensor for each of the first layers,
            after which it is added; or by the number of the layer before which they are.
        embedding_scale: attribute of the language model by which it multiplies embeddings, but no such features.
        both_ways: kinds of decoder layers in which visual tokens see each other both ways, an image or video by itself,
            so that only masks can express it.
        both_ways_if: attribute of the decoder's config, and the value with which they do; None: always.
        both_ways_joined: whether they see each other across all images and videos of a row, all of type 1.
        token_types: argument of the base that tells these tokens: 1 for images, 2 for videos.
        prefix: whether in these layers the whole prompt (type 0) sees itself, whatever the window, so that no token is
            blind to the question.
        anchor: distance of the null token from the first token after the image.
        checkpoints: names of the original release and of the converted checkpoint that `transformers` loads.
        note: anything a user should know, shown by `seeless info`.

    Raises:
        UnsupportedModel: `title` or `model_types` is missing, there is no such field, or it cannot take the value.
    """

    title: str = ""
    model_types: tuple[str, ...] = ()
    base: str = "model"
    language_model: str = "language_model"
    tower: str = "vision_tower"
    video_tower: str | None = None
    projector: str = "multi_modal_projector"
    layers: str = "layers"
    rotary: str = "rotary_emb"
    rotary_layers: str | None = None
    final_norm: str = "norm"
    feed_forward: str = "mlp"
    tower_layers: tuple[str, ...] = ("encoder.layers", "vision_model.encoder.layers", "transformer.layers")
    tower_readers: str | None = None
    projectors: tuple[str, ...] = ()
    feeding: tuple[str, str, str] | None = None
    class_token_towers: tuple[str, ...] = ("clip_vision_model",)
    merge: str | None = None
    video_merge: str | int | None = None
    merged_frames: str | int | None = None
    frames_attend: bool = False
    left_out: str | None = None
    tokens: str | None = None
    merged: Merged = "blocks"
    projected: bool = True
    windows: bool = False
    grids: dict[str, str] = field(default_factory=dict)
    padded: bool = False
    merging_layer: str | None = None
    sizes: str | None = None
    places: dict[str, str] = field(default_factory=dict)
    frames: str | None = None
    packer: str | None = None
    unresampled: dict[str, Any] = field(default_factory=dict)
    runs: bool = False
    overview: int = 0
    crops: Crops = "joined"
    crops_told: tuple[str, ...] = ()
    image_token: str = "image_token_id"
    video_token: str | None = None
    mrope: bool = False
    canvas: bool = False
    layer_inputs: tuple[str, str] | None = None
    modal_experts: tuple[str, str] | None = None
    injected: tuple[str, str] | None = None
    embedding_scale: str | None = None
    both_ways: tuple[str, ...] = ()
    both_ways_if: tuple[str, Any] | None = None
    both_ways_joined: bool = False
    token_types: str = "token_type_ids"
    prefix: bool = False
    anchor: int = 0
    checkpoints: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def __new__(cls, *given: Any, **named: Any) -> "Family":
        known = [own.name for own in fields(cls)]
        for name in named:
            if name not in known:
                near = did_you_mean(name, known) or f"its fields are {', '.join(known)}"
                raise UnsupportedModel(f"a Family has no field {name!r}; {near}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if not self.title or not self.model_types:
            raise UnsupportedModel(
                "a Family needs a title, what people call its models, and model_types, as in their config.json: "
                'Family(title="My VLM", model_types=("my_vlm",))'
            )
        for own in fields(self):
            value = getattr(self, own.name)
            if not _fits(value, own.type):
                kind = inspect.formatannotation(own.type).replace("typing.", "")
                raise UnsupportedModel(
                    f"{own.name}={value!r} of the family {self.title!r} is not possible; it takes {kind}"
                )


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of the kind that a field of `Family` takes."""
    if value is None:
        return "None" in str(annotation)
    if "tuple" in str(annotation):
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    if isinstance(value, bool):
        return annotation is bool
    return isinstance(value, dict if get_origin(annotation) is dict else annotation)


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


class ModelView(LayerKinds, TowerParts):
    """The parts of one model, found by its family's names.

    Raises:
        UnsupportedModel: a part is missing, or the model has a feature that cannot be reduced correctly.
    """

    def __init__(self, model: nn.Module, family: Family) -> None:
        self.model, self.family = model, family
        self.config: Any = model.config
        self.packed: dict = {}  # images that were laid out before, by what decides about it
        self.turning: dict[int, bool] = {}  # layers that were tried: whether they turn queries and keys by position
        base = model if follow(model, family.language_model) is not None else follow(model, family.base)
        if base is None:
            raise UnsupportedModel(f"{type(model).__name__} has no {family.base!r}; is it a {family.title} model?")
        self.base: Any = base
        self.language_model: Any = self._part(base, family.language_model)
        inner = follow(self.language_model, "model")  # a causal LM with a head instead of the bare decoder
        if not hasattr(self.language_model, family.layers) and inner is not None:
            self.language_model = inner
        self.layers: Any = self._part_of_decoder(family.layers)
        self.rotary: Any = self._part_of_decoder(family.rotary)
        self._towers = {"image": self._part(base, family.tower)}
        self._towers["video"] = self._part(base, family.video_tower) if family.video_tower else self._towers["image"]
        self.projector: Any = self._part(base, family.projector)
        self.window = self._window()
        self._check_causal()
        self._check_rotary()
        self._refuse_compiled_layers()
        self._seen = {path: follow(self.base, path) for path in self._paths()}

    def _paths(self) -> list[str]:
        family, inner = self.family, self.family.language_model
        if self.language_model is not follow(self.base, inner):
            inner = f"{inner}.model"
        own = [f"{inner}.{path}" for path in (family.layers, family.rotary)]
        return [inner, *own, family.tower, family.video_tower or family.tower, family.projector]

    def replaced(self) -> str | None:
        """The path of a part that is another module now than it was; None if all are the same."""
        return next((path for path, part in self._seen.items() if follow(self.base, path) is not part), None)

    def _part(self, owner: nn.Module, path: str) -> Any:
        part = follow(owner, path)
        if part is None:
            raise UnsupportedModel(
                f"{type(owner).__name__} has no {path!r} in transformers {version()}; {self.family.title} models of "
                f"transformers {TESTED[1]} have one"
            )
        return part

    def _part_of_decoder(self, path: str) -> Any:
        part = follow(self.language_model, path)
        if part is None:
            raise UnsupportedModel(
                f"the decoder of this {self.family.title} model, {type(self.language_model).__name__}, has no "
                f"{path!r}; tokens can be dropped from decoders with a list of layers and one rotary embedding for "
                "all of them"
            )
        return part

    def _check_causal(self) -> None:
        config = self.language_model.config
        everything = getattr(config, "use_bidirectional_attention", None) in (True, "all") and not self.family.prefix
        if everything or getattr(config, "is_causal", True) is False:
            raise UnsupportedModel(
                f"in the decoder of this {self.family.title} model all tokens see each other both ways (is_causal or "
                "use_bidirectional_attention in its config), so it generates nothing, and tokens cannot be dropped"
            )

    def _check_rotary(self) -> None:
        if (name := self.family.rotary_layers) is None:
            return
        if others := sorted({*range(self.depth)} - {*getattr(self.language_model.config, name)}):
            raise UnsupportedModel(
                f"layers {others} of this {self.family.title} model turn queries and keys by another rotary embedding "
                f"than the rest ({name} in its config), which seeless does not follow"
            )

    def _refuse_compiled_layers(self) -> None:
        if any(layer._compiled_call_impl is not None for layer in self.layers):
            raise UnsupportedModel(
                "the decoder layers are compiled one by one, so hooks on them do not run; "
                "compile the whole model with torch.compile(model) instead"
            )

    def rotate(self, hidden: torch.Tensor, positions: torch.Tensor, index: int) -> Rotary:
        """The rotary embedding of a decoder layer at some positions."""
        if "layer_type" in inspect.signature(self.rotary.forward).parameters:
            return self.rotary(hidden, positions, self.layer_kind(index))
        return self.rotary(hidden, position_ids=positions)

    def frequencies(self, index: int) -> int:
        """Different angles among the dimensions of a decoder layer's rotary embedding."""
        known = {**vars(self.rotary), **dict(self.rotary.named_buffers())}
        for name in ("inv_freq", f"{self.layer_kind(index)}_inv_freq"):
            if isinstance(value := known.get(name), torch.Tensor):
                return len(value)
        raise UnsupportedModel(
            f"{type(self.rotary).__name__} shows no frequencies, so what positions alone add to attention is unknown; "
            "use a strategy that does not ask for it"
        )

    @property
    def embedding_scale(self) -> float:
        """What the decoder multiplies embeddings by, but no features that enter between its layers."""
        name = self.family.embedding_scale
        return 1.0 if name is None else float(self._part_of_decoder(name))

    @cached_property
    def needs_positions(self) -> bool:
        """Whether the decoder's attention reads `position_ids` themselves (Ministral 3 scales its queries by them)."""
        layer = self.layers[self.counting]
        parts = (part for part in layer.modules() if part is not layer)
        asked = (inspect.signature(type(part).forward).parameters.get("position_ids") for part in parts)
        return any(name is not None and name.default is name.empty for name in asked)

    @property
    def final_norm(self) -> Any:
        """The norm before the head."""
        return self._part(self.language_model, self.family.final_norm)

    @property
    def takes_videos(self) -> bool:
        return self.family.video_token is not None

    @cached_property
    def videos_as_images(self) -> bool:
        """Whether the model encodes videos by its method for images."""
        return self.takes_videos and not hasattr(self.base, "get_video_features")

    def encoded_kind(self, kind: Kind, args: tuple, kwargs: dict, given: dict) -> Kind:
        """What the method for `kind` is called with: videos, if it encodes them, too, and `given`, the base model's
        arguments, has them."""
        videos = given.get("pixel_values_videos") if self.videos_as_images else None
        pixels = args[0] if args else kwargs.get("pixel_values")
        return "video" if videos is not None and pixels is videos else kind

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What the model takes in."""
        return ("image", "video") if self.takes_videos else ("image",)

    def placeholder(self, kind: str) -> int:
        """The id of the placeholder of images or videos."""
        name = self.family.image_token if kind == "image" else self.family.video_token
        for attribute in (name, f"{kind}_token_index"):
            if attribute is not None and (token := getattr(self.config, attribute, None)) is not None:
                return token
        raise UnsupportedModel(f"{type(self.config).__name__} names no placeholder for a {kind}")
