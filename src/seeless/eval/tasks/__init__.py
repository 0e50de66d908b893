"""The tasks shipped with the package: questions about held-out pictures, as lmms-eval YAML and parquet."""

from collections.abc import Iterable
from pathlib import Path

OWN = {"tiny": ("scenes", "scenes_choice"), "reader": ("drawings", "drawings_choice")}  # by embedded model
SHORT_NAMES = {name: f"seeless_{name}" for names in OWN.values() for name in names}
TAG = "seeless_offline"


def tasks_path() -> Path:
    """The folder of the shipped tasks, for `--include_path` of lmms-eval.

    >>> sorted(file.name for file in tasks_path().glob("*.yaml"))
    ['seeless_drawings.yaml', 'seeless_drawings_choice.yaml', 'seeless_scenes.yaml', 'seeless_scenes_choice.yaml']
    """
    return Path(__file__).parent


def full_names(names: Iterable[str]) -> list[str]:
    """Names of tasks as lmms-eval knows them: the short ones of the shipped tasks spelled out, others unchanged.

    >>> full_names(["scenes", "mme"])
    ['seeless_scenes', 'mme']
    """
    return [SHORT_NAMES.get(name, name) for name in names]
