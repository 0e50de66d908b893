"""Evaluate models with fewer visual tokens: runs of lmms-eval, video questions, sweeps, plots."""

from seeless.eval.tasks import tasks_path

__all__ = ["tasks_path"]
