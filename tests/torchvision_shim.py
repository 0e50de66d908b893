"""torchvision built for CUDA beside a torch without it, for subprocesses: its Python parts work, its kernels do not."""

import sys
import sysconfig
from pathlib import Path

TORCHVISION = Path(sys.prefix) / "torchvision"  # a folder of its own, so that nothing else finds it
SITECUSTOMIZE = """
import importlib.abc
import sys


class Shim(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and self in sys.meta_path:
            sys.meta_path.remove(self)
            import torch

            if not (torch.version.cuda or torch.version.hip):
                library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                sys.modules[__name__].library = library
        return None


sys.meta_path.insert(0, Shim())
"""


def shim_path(folder):
    """What must stand first in PYTHONPATH; the shim is written to `folder`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return [folder, TORCHVISION]


if __name__ == "__main__":  # for the interpreter that runs it, and all processes of it
    (Path(sysconfig.get_path("purelib")) / "sitecustomize.py").write_text(SITECUSTOMIZE)
