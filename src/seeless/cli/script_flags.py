"""Flags of PriorTR's scripts for videos, in the words of `seeless eval`."""

from dataclasses import dataclass, fields

from seeless.cli.console import notice
from seeless.cli.flags import as_flag, read_flags
from seeless.eval.errors import InvalidRequest

PREFIX = "vtr_"
# What an option is called here, dashes in front left out.
SPELLINGS = {
    "model-path": "model",
    "gt-file-question": "gt-question",
    "gt-file-answers": "gt-answers",
    "output-dir": "output",
}
DEFAULTS = {"strategy": "priortr_2f", "prune_layer": "3", "query_aggregation": "question"}
KEEP_TOKENS = "194"
YES, NO = ("true", "yes", "1"), ("false", "no", "0")


def spelled(option: str) -> str:
    """An option as `seeless eval` has it, both without the dashes in front.

    >>> spelled("gt_file_question"), spelled("keep_tokens"), spelled("limit")
    ('gt-question', 'keep-tokens', 'limit')
    """
    dashes = option.replace("_", "-")
    return SPELLINGS.get(dashes, dashes)


@dataclass(frozen=True)
class Asked:
    """What is put on the model, as `Run` takes it."""

    method: str | None
    budget: dict[str, str]
    params: list[str]
    flags: list[str]


def without_prefix(asked: Asked, videos: bool) -> Asked:
    """The same with `--vtr_strategy fastv --vtr_keep_tokens 64` as method, budget and parameters.

    As in the scripts, `--vtr_enabled` must be among them for anything to be dropped, and parameters that the method
    does not have are left out.

    Args:
        videos: whether the scripts' defaults hold: PriorTR-2F, 194 tokens, K = 3, the question.

    Raises:
        InvalidRequest: such flags beside --method, twice the same, one that is unknown, or a value that is impossible.
    """
    given, rest = _taken_out(asked.flags)
    if not given:
        return asked
    from seeless.eval.reductions import BASELINE, BUDGET, METHOD_PARAMS
    from seeless.vtr import VTR_REGISTRY, VTRConfig

    for name in given:
        if name not in ("enabled", *(knob.name for knob in fields(VTRConfig))):
            raise InvalidRequest(f"--{PREFIX}{name} is no flag of PriorTR's scripts, and VTRConfig has no {name!r}")
        if name in asked.budget:
            raise InvalidRequest(f"--{PREFIX}{name} and {as_flag(name, '')} say the same twice; give one of them")
    if asked.method is not None:
        raise InvalidRequest(f"--method {asked.method} and --{PREFIX}{next(iter(given))} exclude each other")
    if not _enabled(given):
        notice(f"without --{PREFIX}enabled the model stays as it is, as in PriorTR's scripts")
        return Asked(BASELINE, asked.budget, asked.params, rest)
    given.pop("enabled")
    values = {**(DEFAULTS if videos else {}), **given}
    if videos and not {"keep_tokens", "keep_ratio", "score_threshold"} & {*given, *asked.budget}:
        values["keep_tokens"] = KEEP_TOKENS
    method = values.pop("strategy", "priortr")
    budget = {**{name: values.pop(name) for name in BUDGET if name in values}, **asked.budget}
    own = (
        METHOD_PARAMS.get(method)
        if getattr(VTR_REGISTRY.get(method), "__module__", "").startswith("seeless.")
        else None
    )
    for name in [name for name in values if own is not None and name not in own]:
        if name in given:
            notice(f"--{PREFIX}{name} is left out: {method} does not have it")
        values.pop(name)
    return Asked(method, budget, [*(f"{name}={text}" for name, text in values.items()), *asked.params], rest)


def _taken_out(flags: list[str]) -> tuple[dict[str, str], list[str]]:
    """The flags with the prefix, without it, and all others. Several values of a flag are a list."""
    found: list[str] = []
    others: list[str] = []
    into = others
    for word in flags:
        if word.startswith("--"):
            into = found if word[2:].replace("-", "_").startswith(PREFIX) else others
        elif into is found and len(found) > 1 and not found[-1].startswith("--"):
            found[-1] += f",{word}"
            continue
        into.append(word)
    given = {name.removeprefix(PREFIX): value for name, value in read_flags(found).items()}
    for name, value in given.items():
        if value is None and name != "enabled":
            raise InvalidRequest(f"--{PREFIX}{name} needs a value")
    return {name: value or "true" for name, value in given.items()}, others


def _enabled(given: dict[str, str]) -> bool:
    value = given.get("enabled", "false").lower()
    if value not in (*YES, *NO):
        raise InvalidRequest(f"--{PREFIX}enabled {value} is not possible; it is given, or left out")
    return value in YES
