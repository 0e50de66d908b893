"""Where a run comes from: versions, commit, machine."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "accelerate", "peft", "deepspeed", "lmms_eval")


def provenance() -> dict[str, Any]:
    """Versions of everything that may take part (None: not installed), the commit of a checkout, and the machine.

    `changed` says whether the package differs from that commit.
    """
    from seeless import __version__

    return {
        "versions": {"seeless": __version__, "python": platform.python_version(), **dict(map(_version, PACKAGES))},
        **_checkout(),
        "machine": _machine(),
    }


def _version(package: str) -> tuple[str, str | None]:
    try:
        return package, version(package)
    except PackageNotFoundError:
        return package, None


def _checkout() -> dict[str, Any]:
    package = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an installed package may lie within another checkout
        return {"commit": git("rev-parse", "HEAD").strip(), "changed": bool(git("status", "--porcelain", "."))}
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout
        return {"commit": None, "changed": None}


def _machine() -> str:
    import torch

    threads = torch.get_num_threads()
    cpu = f"{threads} CPU thread{'s' if threads > 1 else ''}"
    return f"{platform.machine()}, {torch.cuda.get_device_name() if torch.cuda.is_available() else cpu}"
