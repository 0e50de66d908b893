"""`seeless tasks-path`: where the shipped tasks are."""

from seeless.cli.console import say
from seeless.eval import tasks_path


def print_tasks_path() -> None:
    """Print the folder of the shipped tasks, for lmms-eval: --include_path "$(seeless tasks-path)"."""
    say(str(tasks_path()))
