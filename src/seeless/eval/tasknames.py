"""Which tasks lmms-eval knows, read from its task files in a second instead of importing it for twenty."""

import importlib.util
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from seeless.errors import brief, did_you_mean
from seeless.eval.errors import InvalidRequest, MissingEvaluator
from seeless.eval.tasks import SHORT_NAMES
from seeless.outputs import UnwritableFile, make_folder

CHOICE = ("multiple_choice", "loglikelihood")
FLAW = "seeless-flaw"  # a key that no task file has


@dataclass(frozen=True)
class TaskName:
    """A task, tag or group of tasks.

    Args:
        members: what a tag or group stands for; empty for a task.
        choice: whether it compares likelihoods of given answers instead of generating one.
        flaw: why it cannot be run; "" if nothing is known against it.
    """

    members: tuple[str, ...] = ()
    choice: bool = False
    flaw: str = ""


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


def check_cache() -> None:
    """Raise `UnwritableFile` unless there is a place for the data sets of tasks, which are unpacked into a cache."""
    from huggingface_hub.constants import HF_HOME

    folder = Path(os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME) / "datasets")
    try:
        make_folder(folder)
    except UnwritableFile as error:
        raise UnwritableFile(
            f"{error}; data sets of tasks are unpacked there: let HF_HOME name a folder that can be written"
        ) from error


def task_names(*folders: Path) -> TaskNames:
    """All names in the task files of the folders; of equal names the first folder's counts, as in lmms-eval."""
    found: TaskNames = {}
    for folder in folders:
        found = {**_names_in(folder), **found}
    return found


def enough(asked: Sequence[str], known: TaskNames) -> bool:
    """Whether all that is asked for, and all that stands behind it, is known.

    >>> enough(["all"], {"all": TaskName(("a",)), "a": TaskName()}), enough(["all"], {"all": TaskName(("a",))})
    (True, False)
    """
    return bool(asked) and all(name in known for name in (*asked, *leaves(asked, known)))


def check_tasks(asked: list[str], known: TaskNames) -> None:
    """Raise `InvalidRequest` unless every name, or pattern with a `*`, is known (with near matches), and can be run."""
    for name in asked:
        if name in known or ("*" in name and any(fnmatch(each, name) for each in known)):
            continue
        hint = _near(name, known) or "lmms-eval lists its own: lmms-eval tasks list"
        raise InvalidRequest(f"lmms-eval has no task {brief(name)}; {hint}")
    for name, task in leaves(asked, known).items():
        if task.flaw:
            raise InvalidRequest(f"the task {brief(name)} cannot be run: {task.flaw}")


def check_folders(folders: Iterable[Path]) -> None:
    """Raise `InvalidRequest` unless all folders of further tasks are there."""
    for folder in folders:
        if not os.path.isdir(folder):
            raise InvalidRequest(f"--include-path {brief(folder)} is no folder")


def _near(name: str, known: TaskNames) -> str:
    """What may have been meant: of the shipped tasks first, then names that begin alike, then those spelt alike."""
    for names in ([*SHORT_NAMES, *SHORT_NAMES.values()], sorted(known, key=len)):
        if alike := [each for each in names if name and each.startswith(name)]:
            return f"did you mean {' or '.join(alike[:3])}?"
        if hint := did_you_mean(name, names, cutoff=0.6):
            return hint
    return ""


def leaves(asked: Iterable[str], known: TaskNames, above: tuple[str, ...] = ()) -> dict[str, TaskName]:
    """The tasks behind names, tags, groups and patterns.

    Args:
        above: groups that these are members of.

    Raises:
        InvalidRequest: a group that is a member of itself.

    >>> known = {"all": TaskName(("a", "b")), "a": TaskName(), "b": TaskName(choice=True), "c": TaskName()}
    >>> list(leaves(["all"], known)), list(leaves(["b*", "c"], known))
    (['a', 'b'], ['b', 'c'])
    """
    found: dict[str, TaskName] = {}
    for name in asked:
        for each in [key for key in known if fnmatch(key, name)] if "*" in name else [name]:
            task = known.get(each, TaskName())
            if each in above:
                raise InvalidRequest(f"the group of tasks {brief(each)} is a member of itself")
            found.update(leaves(task.members, known, (*above, each)) if task.members else {each: task})
    return found


def _names_in(folder: Path) -> TaskNames:
    found: TaskNames = {}
    tagged: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.yaml")):
        config = _read(file)
        name = config.get("task")
        if isinstance(name, list) and isinstance(config.get("group"), str):
            members = [each.get("task") if isinstance(each, dict) else each for each in name]
            found[config["group"]] = TaskName(tuple(_texts(members)))
        elif isinstance(name, str):
            found[name] = TaskName(choice=config.get("output_type") in CHOICE, flaw=config.get(FLAW, ""))
            for key in ("tag", "group"):
                for tag in _texts(config.get(key)):
                    tagged.setdefault(tag, []).append(name)
    return {**{tag: TaskName(tuple(names)) for tag, names in tagged.items()}, **found}


def _read(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A task file with what it includes; an unreadable one counts as empty, lmms-eval itself complains about it.

    Args:
        above: files that include it.
    """
    import yaml

    if (path := file.resolve()) in above:
        return {FLAW: f"{brief(above[-1])} includes {brief(path)}, which includes it"}
    try:
        config = yaml.load(file.read_bytes(), _loader())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    if not isinstance(config, dict):
        return {}
    included: dict[str, Any] = {}
    for include in reversed(_texts(config.get("include"))):
        included.update(_read(file.parent / include, (*above, path)))
    return {**included, **config}


def _texts(value: Any) -> list[str]:
    """A text, or the texts of a list."""
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]


def _loader() -> Any:
    """A YAML loader that passes over `!function`."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Reads what is plain."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    return Loader
