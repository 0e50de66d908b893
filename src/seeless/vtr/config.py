"""`VTRConfig`: the one configuration of PriorTR's framework, with the fields of all its copies."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

from seeless.errors import BudgetError, did_you_mean
from seeless.strategy import Recipe, Strategy
from seeless.vtr.backbones import OTHER, Backbone, backbone_of
from seeless.vtr.token_merge import kept_beside_merged

MERGING = "sparsevlm"  # PriorTR's framework tells by this name alone


@dataclass
class VTRConfig(Recipe):
    """How PriorTR's framework reduces: `sl.apply(model, VTRConfig(strategy="priortr", keep_tokens=192))`.

    A field left at None has the value it has in the copy made for the model's backbone (`seeless.vtr.backbones`): K is
    3, 2 on InternVL and 16 on Video-LLaVA; the budget 192 tokens on LLaVA, 320 on LLaVA-NeXT, else a ratio of 0.25,
    0.1111 on Qwen. Budgets: `keep_tokens`, then `score_threshold`, then `keep_ratio`; of the tokens there are at that
    cut, not of the original ones. Caches of all earlier layers are trimmed, positions kept. Subclass it as a dataclass
    to add fields of your own.

    Differences to the copies: a ratio given on LLaVA is honoured (there 192 or 320 always win), `score_threshold` works
    on every backbone, several images of a prompt are one range (the copies reduce the first one, or text between), and
    videos are reduced on Qwen too unless `video_pruning_mode="none"`.

    Args:
        enabled: False leaves the model as it is.
        strategy: registered name; "priortr", on Video-LLaVA "fastv", unless told.
        prune_layer: K, or a list: layers 0 ... K-1 see every token. Entries below 1, or above the number of
            layers, never fire; the number of layers itself cuts the caches only.
        keep_ratio: in [0, 1]; on Qwen in (0, 1]. One per cut in a list, in the order of `prune_layer` as given.
        keep_tokens: at least 0. Likewise.
        score_threshold: keep what scores above it, at least the best. Likewise.
        query_aggregation: "last" row, the "question", or "auto": as the backbone and the strategy have it.
        head_aggregation: "mean" or "max".
        ref_layers: whose incoming visual states are handed over as `z_ref`, the last one's.
        retain_ratio: CLSE's budget, of 576 tokens on LLaVA, of the original tokens elsewhere.
        clse_cutoff_ratio: of CLSE's spectral term.
        clse_temp: of CLSE's spectral term.
        clse_grid_t: frames of CLSE's grid.
        clse_grid_h: rows of CLSE's grid.
        clse_grid_w: columns of CLSE's grid.
        clse_fft_3d: refused; no copy uses it.
        token_merge: whether SparseVLM merges the best of what it drops.
        merge_clusters: checked; SparseVLM works out the number by itself.
        important_ratio: VisPruner's, in (0, 1].
        prior_mode: of PriorTR-2F; "template" needs the native strategy.
        prior_prompt: only as the default; the copy's code for it does not work.
        adaptive_layer: likewise.
        candidate_layers: likewise.
        video_pruning_mode: "none" leaves prompts with a video alone.
        debug: log every cut, logger "seeless.vtr".
        as_released: on Qwen, let score rows see later tokens, as the released code does when it runs with sdpa.

    Raises:
        BudgetError: a field that is out of range.
    """

    enabled: bool = True
    strategy: str | None = None
    prune_layer: int | list[int] | None = None
    keep_ratio: float | list[float] | None = None
    keep_tokens: int | list[int] | None = None
    score_threshold: float | list[float] | None = None
    query_aggregation: Literal["last", "question", "auto"] | None = None
    head_aggregation: Literal["mean", "max"] = "mean"
    ref_layers: list[int] | None = None
    retain_ratio: float | None = None
    clse_cutoff_ratio: float = 0.1
    clse_temp: float = 0.1
    clse_grid_t: int = 8
    clse_grid_h: int = 16
    clse_grid_w: int = 16
    clse_fft_3d: bool = False
    token_merge: bool = False
    merge_clusters: int | list[int] = 10
    important_ratio: float = 0.5
    prior_mode: Literal["truncate", "template"] = "truncate"
    prior_prompt: str = ""
    adaptive_layer: bool = False
    candidate_layers: list[int] = field(default_factory=lambda: [4, 8, 12, 16, 20, 24, 28])
    video_pruning_mode: Literal["none", "frame", "window"] | None = None
    debug: bool = False
    as_released: bool = False

    runner: ClassVar[Callable[["VTRConfig"], Strategy]]  # `seeless.vtr.guest` puts it here

    def __new__(cls, *values: Any, **named: Any) -> "VTRConfig":
        """Refuse names that are no field before Python does, with those it may have meant."""
        known = inspect.signature(cls.__init__).parameters
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()):
            cls._check_names(named, list(known)[1:])
        return super().__new__(cls)

    @classmethod
    def _check_names(cls, given: Iterable[str], known: list[str]) -> None:
        for name in given:
            if name not in known:
                hint = did_you_mean(name, known, cutoff=0.6) or f"its fields are {', '.join(known)}"
                raise BudgetError(f"{cls.__name__} has no field {name!r}; {hint}")

    def __post_init__(self) -> None:
        self.backbone: Backbone = OTHER
        self.merging = False  # whether the strategy puts merged tokens beside the kept ones
        _check_numbers("prune_layer", self.prune_layer, whole=True)
        _check_numbers("keep_tokens", self.keep_tokens, whole=True, least=0)
        _check_numbers("keep_ratio", self.keep_ratio, least=0, most=1)
        _check_numbers("score_threshold", self.score_threshold)
        _check_numbers("retain_ratio", self.retain_ratio, least=0, most=1)
        _check_numbers("merge_clusters", self.merge_clusters, whole=True, least=1)
        _check_numbers("important_ratio", self.important_ratio, least=0, most=1)
        for name in ("ref_layers", "candidate_layers"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, list):
                raise BudgetError(f"{name}={value!r} is not possible; give a list of layers")
            _check_numbers(name, value or None, whole=True, least=0)
        for name in ("enabled", "clse_fft_3d", "token_merge", "adaptive_layer", "debug", "as_released"):
            _check_choice(name, getattr(self, name), (True, False))
        for name in ("clse_cutoff_ratio", "clse_temp"):
            _check_numbers(name, getattr(self, name), least=0)
        for name in ("clse_grid_t", "clse_grid_h", "clse_grid_w"):
            _check_numbers(name, getattr(self, name), whole=True, least=1)
        _check_choice("query_aggregation", self.query_aggregation, ("last", "question", "auto", None))
        _check_choice("head_aggregation", self.head_aggregation, ("mean", "max"))
        _check_choice("prior_mode", self.prior_mode, ("truncate", "template"))
        _check_choice("video_pruning_mode", self.video_pruning_mode, ("none", "frame", "window", None))
        if self.important_ratio == 0 or self.retain_ratio == 0:
            raise BudgetError("important_ratio and retain_ratio must be above 0")
        for name, harmless in (("clse_fft_3d", False), ("prior_prompt", ""), ("adaptive_layer", False)):
            if getattr(self, name) != harmless:
                raise BudgetError(
                    f"{name}={getattr(self, name)!r} is not possible: PriorTR's own code for it does not work or is "
                    f"never run, so there is nothing to reproduce; leave it at {harmless!r}"
                )
        if self.video_pruning_mode in ("frame", "window"):
            raise BudgetError("video_pruning_mode 'frame' and 'window' are reserved names that no copy implements")
        for name in ("keep_tokens", "keep_ratio", "score_threshold"):
            value = getattr(self, name)
            if isinstance(value, list) and len(value) != self.num_prune_layers:
                raise BudgetError(
                    f"{name}={value} needs one entry per prune layer, of which there are {self.prune_layer}"
                )

    # What strategies ask.

    @property
    def prune_layers(self) -> list[int]:
        """All K, sorted, each once."""
        return sorted(set(self.get_prune_layers()))

    @property
    def num_prune_layers(self) -> int:
        """How many cuts."""
        return len(self.get_prune_layers())

    def get_prune_layers(self) -> list[int]:
        """All K in the order given; while `prune_layer` is None, the default of the backbone."""
        layers = self.backbone.prune_layer if self.prune_layer is None else self.prune_layer
        return list(layers) if isinstance(layers, list) else [layers]

    def is_prune_layer(self, layer_idx: int) -> bool:
        """Whether there is a cut before this layer."""
        return layer_idx in self.get_prune_layers()

    def get_score_layer(self) -> int:
        """The layer whose attention the first cut reads."""
        return max(0, self.get_prune_layers()[0] - 1)

    def get_keep_count(self, num_tokens: int, step: int = 0) -> int:
        """Tokens the budget keeps of `num_tokens` at a cut, thresholds aside.

        Where a strategy merges (`token_merge`), a ratio is for the kept and the merged ones together.
        """
        tokens = _at(self.keep_tokens, step)
        if tokens is not None:
            return min(tokens, num_tokens)
        ratio = _at(self.keep_ratio, step)
        ratio = self.backbone.keep_ratio if ratio is None else ratio
        count = max(self.backbone.least, int(num_tokens * ratio))
        return kept_beside_merged(count, num_tokens) if self.merging else count

    def get_merge_cluster_count(self, step: int = 0) -> int:
        """The entry of `merge_clusters` for a cut."""
        return _at(self.merge_clusters, step)

    def at_step(self, step: int) -> "VTRConfig":
        """This configuration with the lists of budgets replaced by their entries for one cut."""
        single = copy(self)
        for name in ("keep_tokens", "keep_ratio", "score_threshold", "merge_clusters"):
            setattr(single, name, _at(getattr(self, name), step))
        return single

    # Coming and going.

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "VTRConfig":
        """The inverse of `to_dict`.

        Raises:
            BudgetError: a name that is no field.
        """
        cls._check_names(data, [knob.name for knob in fields(cls)])
        return cls(**data)

    def filled(self, backbone: Backbone) -> "VTRConfig":
        """A copy whose None fields have the backbone's values."""
        strategy = self.strategy or backbone.strategy
        free = self.keep_tokens is None and self.keep_ratio is None and self.retain_ratio is None
        auto = backbone.keep_tokens if free and self.score_threshold is None else None
        query = self.query_aggregation
        if query in (None, "auto"):
            by_strategy = "question" if strategy in ("priortr", "priortr_2f") else "last"
            query = by_strategy if backbone.query == "auto" else backbone.query  # type: ignore[assignment]
        result = replace(
            self,
            strategy=strategy,
            prune_layer=backbone.prune_layer if self.prune_layer is None else self.prune_layer,
            keep_ratio=backbone.keep_ratio if self.keep_ratio is None else self.keep_ratio,
            keep_tokens=auto if self.keep_tokens is None else self.keep_tokens,
            query_aggregation=query,
            ref_layers=list(self.ref_layers or []),
        )
        result.backbone = backbone
        result.merging = self.token_merge and strategy == MERGING
        return result

    def strategy_for(self, config: Any) -> Strategy:
        """The strategy that `apply` puts on a model with this `config` (of `transformers`).

        Raises:
            BudgetError: no such strategy, or a budget the backbone's copy cannot take.
            UnsupportedModel: the strategy has no meaning on this backbone.
        """
        backbone = backbone_of(config.model_type)
        if self.as_released and not backbone.released_rows:
            raise BudgetError(
                f"as_released=True reproduces a defect of PriorTR's wrappers for Qwen models; the one for "
                f"{config.model_type} has nothing of the kind, so leave it out"
            )
        ratios = self.keep_ratio if isinstance(self.keep_ratio, list) else [self.keep_ratio]
        if backbone.least and 0 in ratios and self.keep_tokens is None:
            raise BudgetError("keep_ratio=0 is not possible on Qwen models; give a ratio in (0, 1]")
        return VTRConfig.runner(self.filled(backbone))


def _at(value: Any, step: int) -> Any:
    return value[step] if isinstance(value, list) else value


def _check_numbers(
    name: str, value: Any, whole: bool = False, least: float | None = None, most: float | None = None
) -> None:
    kind = Integral if whole else Real
    for one in value if isinstance(value, list) else [] if value is None else [value]:
        fits = isinstance(one, kind) and not isinstance(one, bool) and math.isfinite(one)  # type: ignore[arg-type]
        if not fits or (least is not None and one < least) or (most is not None and one > most):
            takes = "whole numbers" if whole else "numbers"
            bounds = "" if least is None else f" from {least} on" if most is None else f" from {least} to {most}"
            raise BudgetError(f"{name}={value!r} is not possible; it takes {takes}{bounds}")
    if isinstance(value, list) and not value:
        raise BudgetError(f"{name}=[] is empty; give at least one number")


def _check_choice(name: str, value: Any, choices: tuple) -> None:
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices if choice is not None)
        raise BudgetError(f"{name}={value!r} is not possible; choose one of {listed}")
