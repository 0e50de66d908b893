"""What a plug-in file finds beside it: PriorTR's framework, as `seeless.vtr` has it, and the files of its own folder."""

import hashlib
import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

PREFIX = "seeless_plugins_"
FRAMEWORK = "seeless.vtr"
# Where files stand in PriorTR's copies: `vtr/config.py`, `vtr/strategy/priortr.py`, `vtr/model/token_merge.py`.
PACKAGES = ("strategy", "model")
FOUNDATIONS = ("base", "registry", "config")  # with others than seeless.vtr's, no class would be found
METHODS = ("clse", "fastv", "priortr", "priortr_2f", "sparsevlm", "token_merge", "vispruner")


def package_of(file: Path) -> str:
    """The package a plug-in file is imported in, so that its relative imports are answered.

    `.base`, `.registry` and `..config` are `seeless.vtr`'s, and what these lack is looked for in files of that name
    beside the plug-in. `.mine` is `mine.py` beside it; where there is none, a method's file is `seeless.vtr`'s.
    """
    folder = file.resolve().parent
    root = PREFIX + hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    _finder.folders[root] = folder
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
    package = f"{root}.{PACKAGES[0]}"
    importlib.import_module(package)
    return package


class _Finder(MetaPathFinder):
    """Finds the modules of those packages.

    Attributes:
        folders: of plug-in files, by the name of the outermost package made for them.
    """

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        root, *inner = fullname.split(".")
        if root not in self.folders:
            return None
        if not inner or inner in [[package] for package in PACKAGES]:
            return ModuleSpec(fullname, _Alias(FRAMEWORK, None), is_package=True)
        inner = inner[1:] if inner[0] in PACKAGES else inner
        name, beside = ".".join(inner), _beside(fullname, self.folders[root].joinpath(*inner))
        if name in FOUNDATIONS:
            return ModuleSpec(fullname, _Alias(f"{FRAMEWORK}.{name}", beside))
        if beside is not None:
            return beside
        if name in METHODS:
            return ModuleSpec(fullname, _Alias(f"{FRAMEWORK}.{name}", None))
        raise ModuleNotFoundError(
            f"there is no {'/'.join(inner)}.py beside it, and {FRAMEWORK} has no {name}; it has "
            f"{', '.join((*FOUNDATIONS, *METHODS))}",
            name=fullname,
        )


class _Alias(Loader):
    """A module with the public names of another one.

    Args:
        of: the other one's name.
        beside: a file that is asked for names the other one lacks.
    """

    def __init__(self, of: str, beside: ModuleSpec | None) -> None:
        self.of, self.beside = of, beside

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        names = vars(importlib.import_module(self.of))
        public = {name: value for name, value in names.items() if not name.startswith("_")}
        vars(module).update((name, value) for name, value in public.items() if not isinstance(value, ModuleType))
        if self.of != FRAMEWORK:
            module.__getattr__ = self.missing  # type: ignore[method-assign]

    def missing(self, name: str) -> Any:
        """A name the other module lacks."""
        if name.startswith("__"):
            raise AttributeError(name)
        if self.beside is not None:
            own = _load(self.beside)
            if hasattr(own, name):
                return getattr(own, name)
        names = vars(importlib.import_module(self.of)).items()
        own_names = [known for known, value in names if getattr(value, "__module__", None) == self.of]
        offered = [known for known in own_names if not known.startswith("_")]
        raise ImportError(f"{self.of} has no {name}; it has {', '.join(sorted(offered))}")


def _beside(fullname: str, path: Path) -> ModuleSpec | None:
    """A file or package of the plug-in's own folder."""
    for file, places in ((path.with_name(path.name + ".py"), None), (path / "__init__.py", [str(path)])):
        if file.is_file():
            return importlib.util.spec_from_file_location(fullname, file, submodule_search_locations=places)
    return None


def _load(spec: ModuleSpec) -> ModuleType:
    """The module of a file that stands in the shadow of one of the framework's."""
    name = f"{spec.name}_beside"
    if name not in sys.modules:
        own = importlib.util.spec_from_file_location(name, spec.origin)
        assert own is not None and own.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(own)
        try:
            own.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


_finder = _Finder()
