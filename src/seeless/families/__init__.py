"""One file per family, mostly data. Files here are found by scanning; nothing needs to be listed."""

import importlib
import pkgutil
from functools import cache

from seeless.core.family import Family
from seeless.errors import UnsupportedModel


@cache
def families() -> dict[str, Family]:
    """Every supported `config.model_type` and its family."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        family = importlib.import_module(f"{__name__}.{module.name}").FAMILY
        found.update(dict.fromkeys(family.model_types, family))
    return dict(sorted(found.items()))


def family_of(model_type: str) -> Family:
    """The family of a `config.model_type`.

    Raises:
        UnsupportedModel: none has it; the message lists those there are.
    """
    if model_type not in families():
        raise UnsupportedModel(
            f"models of type {model_type!r} are not supported; supported are {', '.join(families())}. "
            "A new family is one file of names: see src/seeless/families/llava.py"
        )
    return families()[model_type]
