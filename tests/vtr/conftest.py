"""Guests are registered as this folder's tests are collected, and forgotten by whoever asks for a clean registry."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
