"""What a plug-in file finds beside it: PriorTR's framework as `seeless.vtr` has it, and files of its own folder."""

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

    `.base`, `.registry` and `..config` are `seeless.vtr`'s; what these lack comes from the user's files of that name.
    `.mine` is `mine.py` beside the plug-in, `..model.mine` is in the folder `model` beside its folder. Where there is
    none, a method of PriorTR's is `seeless.vtr`'s.
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
        file = self._file(self.folders[root], inner)
        name = ".".join(inner[1:] if inner[0] in PACKAGES else inner)
        if name in FOUNDATIONS:
            within = f"{root}.{PACKAGES[0]}" if file is not None and file.parent == self.folders[root] else root
            shadow = None if file is None else importlib.util.spec_from_file_location(f"{within}.{name}_beside", file)
            return ModuleSpec(fullname, _Alias(f"{FRAMEWORK}.{name}", shadow))
        if file is not None:
            places = [str(file.parent)] if file.name == "__init__.py" else None
            return importlib.util.spec_from_file_location(fullname, file, submodule_search_locations=places)
        if name in METHODS:
            return ModuleSpec(fullname, _Alias(f"{FRAMEWORK}.{name}", None))
        raise ModuleNotFoundError(
            f"there is no {name.replace('.', '/')}.py beside it, and {FRAMEWORK} has no {name}; it has "
            f"{', '.join((*FOUNDATIONS, *METHODS))}",
            name=fullname,
        )

    @staticmethod
    def _file(folder: Path, inner: list[str]) -> Path | None:
        """The user's own file of a module: where PriorTR's copies have it, or else beside the plug-in."""
        own = inner[1:] if inner[0] in PACKAGES else inner
        placed = folder.joinpath(*own) if inner[0] == PACKAGES[0] else folder.parent.joinpath(*inner)
        paths = [placed, folder.joinpath(*own)]
        files = [file for path in paths for file in (path.with_name(path.name + ".py"), path / "__init__.py")]
        return next((file for file in files if file.is_file()), None)


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


def _load(spec: ModuleSpec) -> ModuleType:
    """The module of a file that stands in the shadow of one of the framework's."""
    if spec.name not in sys.modules:
        assert spec.loader is not None
        sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[spec.name]
            raise
    return sys.modules[spec.name]


_finder = _Finder()
