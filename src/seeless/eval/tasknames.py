"""Which tasks lmms-eval knows, read from its task files in a second instead of importing it for twenty."""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from seeless.errors import did_you_mean
from seeless.eval.errors import InvalidRequest, MissingEvaluator

CHOICE = ("multiple_choice", "loglikelihood")


@dataclass(frozen=True)
class TaskName:
    """A task, tag or group of tasks.

    Args:
        members: what a tag or group stands for; empty for a task.
        choice: whether it compares likelihoods of given answers instead of generating one.
    """

    members: tuple[str, ...] = ()
    choice: bool = False


TaskNames = dict[str, TaskName]


def lmms_eval_folder() -> Path:
    """Where lmms-eval is installed.

    Raises:
        MissingEvaluator: nowhere.
    """
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        raise MissingEvaluator('lmms-eval is not installed in this environment: pip install "seeless[eval]"')
    return Path(next(iter(spec.submodule_search_locations)))


def task_names(*folders: Path) -> TaskNames:
    """All names in the task files of the folders; of equal names the first folder's counts, as in lmms-eval."""
    found: TaskNames = {}
    for folder in folders:
        found = {**_names_in(folder), **found}
    return found


def check_tasks(asked: list[str], known: TaskNames) -> None:
    """Raise `InvalidRequest` with near matches unless every name, or pattern with a `*`, is known."""
    for name in asked:
        if name in known or ("*" in name and any(fnmatch(each, name) for each in known)):
            continue
        hint = did_you_mean(name, known, cutoff=0.6) or "lmms-eval lists its own: lmms-eval tasks list"
        raise InvalidRequest(f"lmms-eval has no task {name!r}; {hint}")


def leaves(asked: Iterable[str], known: TaskNames) -> dict[str, TaskName]:
    """The tasks behind names, tags, groups and patterns.

    >>> known = {"all": TaskName(("a", "b")), "a": TaskName(), "b": TaskName(choice=True), "c": TaskName()}
    >>> list(leaves(["all"], known)), list(leaves(["b*", "c"], known))
    (['a', 'b'], ['b', 'c'])
    """
    found: dict[str, TaskName] = {}
    for name in asked:
        for each in [key for key in known if fnmatch(key, name)] if "*" in name else [name]:
            task = known.get(each, TaskName())
            found.update(leaves(task.members, known) if task.members else {each: task})
    return found


def _names_in(folder: Path) -> TaskNames:
    found: TaskNames = {}
    tagged: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.yaml")):
        config = _read(file)
        name = config.get("task")
        if isinstance(name, list) and isinstance(config.get("group"), str):
            members = (each["task"] if isinstance(each, dict) else each for each in name)
            found[config["group"]] = TaskName(tuple(each for each in members if isinstance(each, str)))
        elif isinstance(name, str):
            found[name] = TaskName(choice=config.get("output_type") in CHOICE)
            for key in ("tag", "group"):
                tags = config.get(key) or []
                for tag in [tags] if isinstance(tags, str) else tags:
                    tagged.setdefault(tag, []).append(name)
    return {**{tag: TaskName(tuple(names)) for tag, names in tagged.items()}, **found}


def _read(file: Path) -> dict[str, Any]:
    """A task file with what it includes; an unreadable one counts as empty, lmms-eval itself complains about it."""
    import yaml

    try:
        config = yaml.load(file.read_bytes(), _loader())
    except (OSError, yaml.YAMLError):
        return {}
    if not isinstance(config, dict):
        return {}
    includes = config.get("include") or []
    above: dict[str, Any] = {}
    for include in reversed([includes] if isinstance(includes, str) else includes):
        above.update(_read(file.parent / include))
    return {**above, **config}


def _loader() -> Any:
    """A YAML loader that passes over `!function`."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Reads what is plain."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    return Loader
