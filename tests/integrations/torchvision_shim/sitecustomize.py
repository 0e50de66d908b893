"""Lets torchvision built for CUDA be imported next to a torch without it: its Python parts work, its kernels do not."""

import importlib.abc
import sys


class _Shim(importlib.abc.MetaPathFinder):
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


sys.meta_path.insert(0, _Shim())
