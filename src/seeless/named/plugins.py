"""Import Python files that register strategies."""

import importlib.util
import os
import sys
from pathlib import Path
from traceback import walk_tb

from seeless.errors import brief, with_kind
from seeless.named.beside import PREFIX, package_of
from seeless.named.errors import UnusablePlugin


def load_plugins(files: list[Path]) -> None:
    """Import the files, in order, so that their `@sl.register(...)`, `@register_strategy(...)` and
    `sl.register_family(...)` run.

    Relative imports, as files of PriorTR's framework have them, are answered by `seeless.named.beside`.

    Raises:
        UnusablePlugin: a file is missing, fails while it is imported, or registers a name that another plugin has; or
            nothing is registered by any.
    """
    if not files:  # what only shows something imports no method, and so no torch
        return
    from seeless.registry import available, strategy_class
    from seeless.vtr import VTR_REGISTRY

    for file in files:
        before = _guests()
        _load(file)
        for name, cls in _guests().items():
            if name in before and before[name].__module__ != cls.__module__:
                other = sys.modules[before[name].__module__].__file__
                raise UnusablePlugin(
                    f"plugin {file} cannot be used beside {other}: both register {name!r}; give one another name"
                )
    known = [*map(strategy_class, available()), *VTR_REGISTRY.values()]
    if all(cls.__module__.startswith("seeless.") for cls in known):
        from seeless import models

        if models.families_from_outside():
            return
        file = files[-1]
        raise UnusablePlugin(
            f'plugin {file} registers nothing; write @sl.register("{_name_for(file)}") above its class, '
            f'@seeless.vtr.register_strategy("{_name_for(file)}") above a guest; families: sl.register_family(...)'
        )


def _name_for(file: Path) -> str:
    name = file.stem.lower().replace("-", "_").replace(" ", "_")
    return name if name.isidentifier() else "my_method"


def _load(file: Path) -> None:
    if not os.path.isfile(file):
        is_folder = os.path.isdir(file)
        raise UnusablePlugin(f"plugin {brief(file)} {'is a folder; give its files' if is_folder else 'does not exist'}")
    name = f"{package_of(file)}.{file.resolve().stem.replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UnusablePlugin(f"plugin {file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a plugin is foreign code: whatever it raises is its error
        del sys.modules[name]
        lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == spec.origin]
        line = f", line {lines[-1]}" if lines else ""
        raise UnusablePlugin(f"plugin {file} cannot be imported{line}: {with_kind(error)}") from error


def _guests() -> dict[str, type]:
    """The guests that plugins have registered."""
    from seeless.vtr import VTR_REGISTRY

    return {name: cls for name, cls in VTR_REGISTRY.items() if cls.__module__.startswith(PREFIX)}
