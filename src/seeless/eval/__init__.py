"""Evaluate models with fewer visual tokens: runs of lmms-eval, video questions, sweeps, plots."""
