"""The tasks shipped with the package: held-out scenes for the embedded model, as lmms-eval YAML and parquet."""

from collections.abc import Iterable
from pathlib import Path

SHORT_NAMES = {"scenes": "seeless_scenes", "scenes_choice": "seeless_scenes_choice"}
TAG = "seeless_offline"


def tasks_path() -> Path:
    """The folder of the shipped tasks, for `--include_path` of lmms-eval.

    >>> sorted(file.name for file in tasks_path().glob("*.yaml"))
    ['seeless_scenes.yaml', 'seeless_scenes_choice.yaml']
    """
    return Path(__file__).parent


def full_names(names: Iterable[str]) -> list[str]:
    """Names of tasks as lmms-eval knows them: the short ones of the shipped tasks spelled out, others unchanged.

    >>> full_names(["scenes", "mme"])
    ['seeless_scenes', 'mme']
    """
    return [SHORT_NAMES.get(name, name) for name in names]
