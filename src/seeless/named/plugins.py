"""Import Python files that register strategies."""

import importlib.util
import sys
from pathlib import Path
from traceback import walk_tb

from seeless.named.beside import package_of
from seeless.named.errors import UnusablePlugin, with_kind


def load_plugins(files: list[Path]) -> None:
    """Import the files, in order, so that their `@sl.register(...)` and `@register_strategy(...)` run.

    Relative imports, as files of PriorTR's framework have them, are answered by `seeless.named.beside`.

    Raises:
        UnusablePlugin: a file is missing, or fails while it is imported.
    """
    for file in files:
        _load(file)


def _load(file: Path) -> None:
    if not file.is_file():
        raise UnusablePlugin(f"plugin {file} does not exist")
    name = f"{package_of(file)}.{file.stem.replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UnusablePlugin(f"plugin {file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a plugin is foreign code: whatever it raises is its error
        del sys.modules[name]
        lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == spec.origin]
        line = f", line {lines[-1]}" if lines else ""
        raise UnusablePlugin(f"plugin {file} cannot be imported{line}: {with_kind(error)}") from error
