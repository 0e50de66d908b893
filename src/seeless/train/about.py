"""Where a run comes from: versions, commit, machine."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "accelerate", "peft", "deepspeed")


def provenance() -> dict[str, Any]:
    """Versions of everything that takes part (None: not installed), the commit of a checkout, and the machine."""
    from seeless import __version__

    return {
        "versions": {"seeless": __version__, "python": platform.python_version(), **dict(map(_version, PACKAGES))},
        "commit": _commit(),
        "machine": _machine(),
    }


def _version(package: str) -> tuple[str, str | None]:
    try:
        return package, version(package)
    except PackageNotFoundError:
        return package, None


def _commit() -> str | None:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout
        return None
    return done.stdout.strip()


def _machine() -> str:
    import torch

    threads = torch.get_num_threads()
    cpu = f"{threads} CPU thread{'s' if threads > 1 else ''}"
    return f"{platform.machine()}, {torch.cuda.get_device_name() if torch.cuda.is_available() else cpu}"
