"""What `seeless eval` puts on the model: PriorTR's methods, strategies of seeless' own, or nothing."""

from dataclasses import Field, dataclass
from typing import Any

import seeless as sl
from seeless.errors import brief, did_you_mean
from seeless.eval.errors import InvalidRequest
from seeless.eval.targets import PLUGIN, Target
from seeless.fields import field_types, takes
from seeless.named.knobs import Spell, build_strategies, default_of, parse_value
from seeless.named.strategies import GUEST, OF_YOUR_OWN, Choice, choose
from seeless.strategy import Recipe
from seeless.vtr import VTR_REGISTRY

BASELINE = "baseline"
BUDGET = ("keep_tokens", "keep_ratio", "prune_layer")
EVERY_METHOD = ("score_threshold", "video_pruning_mode", "debug", "as_released")
ATTENTION = ("query_aggregation", "head_aggregation", *EVERY_METHOD)
# PriorTR's own; a plugin's method takes every field of its configuration.
METHOD_PARAMS: dict[str, tuple[str, ...]] = {
    BASELINE: (),
    "clse": (
        *("retain_ratio", "clse_cutoff_ratio", "clse_temp", "clse_grid_t", "clse_grid_h", "clse_grid_w"),
        *("ref_layers", *EVERY_METHOD),
    ),
    "fastv": ATTENTION,
    "priortr": ATTENTION,
    "priortr_2f": ("prior_mode", *ATTENTION),
    "sparsevlm": ("token_merge", "merge_clusters", *EVERY_METHOD),
    "vispruner": ("important_ratio", "video_pruning_mode", "debug"),
}
LOADING: dict[str, Any] = {
    "dtype": str,
    "attn_implementation": str,
    "device_map": str,
    "revision": str,
    "max_frames": int,
    "min_pixels": int,
    "max_pixels": int,
    "system_prompt": str,
}
INTERNVL_ONLY: dict[str, Any] = {"max_num": int}


@dataclass(frozen=True)
class Reduction:
    """What is put on the model, as an object and as lmms-eval is told.

    Args:
        label: for names of folders: the method and its budget.
        strategy: to check against a model, or to apply; None leaves the model as it is.
        model_id: of the plug-in.
        arguments: of that model id, names and values as text.
        notices: what was asked for and is done differently.
    """

    label: str
    strategy: sl.Strategy | Recipe | None
    model_id: str
    arguments: dict[str, str]
    notices: tuple[str, ...] = ()


def methods() -> list[str]:
    """The names `--method` takes: PriorTR's, those of plugins, and the baseline."""
    return [*sorted(VTR_REGISTRY), BASELINE]


def method_params(target: Target, method: str) -> dict[str, Any]:
    """Names and types of what `--param` takes for a method on a model.

    >>> from seeless.eval.targets import SHORT
    >>> sorted(set(method_params(SHORT["qwen3vl"], "vispruner")) - set(LOADING))
    ['debug', 'important_ratio', 'video_pruning_mode']
    """
    loading = {**LOADING, **(INTERNVL_ONLY if target.guest_id in ("internvl_vtr", None) else {})}
    if method == BASELINE:
        return loading
    knobs = _knobs(method)
    own = METHOD_PARAMS.get(method) if VTR_REGISTRY[method].__module__.startswith("seeless.") else None
    names = [name for name in knobs if name not in BUDGET] if own is None else own
    hints = field_types(_choice(method).flags_of)
    return {**{name: hints[name] for name in names}, **loading}


def guest(target: Target, method: str, budget: dict[str, str], params: list[str]) -> Reduction:
    """A method of PriorTR's framework, run as the framework does.

    Args:
        budget: those of `keep_tokens`, `keep_ratio` and `prune_layer` that were given.
        params: each "NAME=VALUE".

    Raises:
        InvalidRequest: an unknown method, a parameter that it does not have, a value that it cannot take.
    """
    if method not in methods():
        raise InvalidRequest(f"no method is called {brief(method)}; {_near(method, methods())} {OF_YOUR_OWN}")
    budget, values = dict(budget), _params(target, method, params)
    on_tower = method == "vispruner" and VTR_REGISTRY[method].__module__.startswith("seeless.")
    notices: tuple[str, ...] = ()
    if method == BASELINE:
        if budget:
            raise InvalidRequest(f"the baseline keeps every token; leave out {_flag(next(iter(budget)))}")
    elif "keep_tokens" in budget and "keep_ratio" in budget:
        raise InvalidRequest("--keep-tokens and --keep-ratio exclude each other")
    elif on_tower and budget.pop("prune_layer", ""):
        notices = ("vispruner acts before the language model, so --prune-layer is left out",)
    if method == "sparsevlm":
        values.setdefault("token_merge", True)  # as PriorTR's runner has it
    arguments = {name: _text(name, value) for name, value in values.items()}
    strategy = None
    if method != BASELINE:
        hints, knobs = field_types(_choice(method).flags_of), _knobs(method)
        given = {name: _value(_flag(name), text, hints[name]) for name, text in budget.items()}
        arguments = {**{name: _text(name, value) for name, value in given.items()}, **arguments}
        fields = {name: value for name, value in values.items() if name in knobs}
        try:
            strategy = _choice(method).build({**given, **fields})
        except sl.SeelessError as error:
            raise InvalidRequest(str(error)) from error
    model_id = target.guest_id or PLUGIN
    named = method if target.guest_id or method == BASELINE else GUEST + method
    label = method + (f"_k{budget['keep_tokens']}" if "keep_tokens" in budget else "")
    label += f"_r{budget['keep_ratio']}" if "keep_ratio" in budget else ""
    return Reduction(label, strategy, model_id, {"strategy": named, **arguments}, notices)


def native(
    target: Target, name: str | None, flags: dict[str, str | None], params: list[str], spell: Spell
) -> Reduction:
    """A strategy of seeless' own with its fields, by the flags that `seeless run` takes; None: the model as it is.

    Args:
        spell: how errors write a flag.

    Raises:
        InvalidRequest: an unknown strategy, a flag that it does not have, a value that it cannot take.
    """
    loading = {n: _text(n, v) for n, v in _params(target, BASELINE, params).items()}
    if name in (None, "none", BASELINE):
        if flags:
            raise InvalidRequest(f"{_flag(next(iter(flags)))} is no flag of this command and no strategy is named")
        return Reduction("none", None, PLUGIN, {"strategy": "none", **loading})
    assert name is not None
    try:
        choice, strategy = choose(name), build_strategies([name], flags, spell)[0]
    except sl.SeelessError as error:
        raise InvalidRequest(str(error)) from error
    arguments = {}
    for knob in choice.knobs():
        value = getattr(strategy, knob.name)
        if value != default_of(knob):
            arguments[knob.name] = _text(knob.name, value)
    budget = {"keep": "_k", "average": "_a", "keep_tokens": "_k", "keep_ratio": "_r"}
    budget |= {"layer": "_l", "prune_layer": "_l"}
    label = name.replace(":", "-") + "".join(
        f"{short}{arguments[key].strip('[]').replace(';', '-')}" for key, short in budget.items() if key in arguments
    )
    return Reduction(label, strategy, PLUGIN, {"strategy": name, **arguments, **loading})


def _params(target: Target, method: str, params: list[str]) -> dict[str, Any]:
    known = method_params(target, method)
    values: dict[str, Any] = {}
    for param in params:
        name, equals, text = param.partition("=")
        if not equals:
            raise InvalidRequest(f"--param {param}: write NAME=VALUE")
        if name in BUDGET:
            raise InvalidRequest(f"--param {name} is a flag of its own: {_flag(name)} {text}")
        if name not in known:
            elsewhere = sorted(each for each, names in METHOD_PARAMS.items() if name in names)
            hint = f"it belongs to {', '.join(elsewhere)}" if elsewhere else _near(name, list(known))
            raise InvalidRequest(f"{method} has no parameter {name!r}; {hint}")
        values[name] = _value(f"--param {name}", text, known[name])
    return values


def _value(flag: str, text: str, annotation: Any) -> Any:
    try:
        return parse_value(text, annotation)
    except ValueError as error:
        raise InvalidRequest(f"{flag}={text} is not possible; it takes {takes(annotation)}") from error


def _text(name: str, value: Any) -> str:
    """A value as lmms-eval's `--model_args` carries it."""
    if isinstance(value, list | tuple):
        return "[" + ";".join(map(str, value)) + "]"
    text = "none" if value is None else str(value)
    if "," in text:
        raise InvalidRequest(f"{name}={text!r} cannot be passed to lmms-eval: no comma may be in it")
    return text


def _choice(method: str) -> Choice:
    return choose(GUEST + method)


def _knobs(method: str) -> dict[str, Field]:
    return {knob.name: knob for knob in _choice(method).knobs()}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _near(name: str, known: list[str]) -> str:
    return did_you_mean(name, known) or f"there are {', '.join(known)}"
