"""One file per family, mostly data. Files here are found by scanning; families from outside are registered."""

import importlib
import importlib.metadata
import pkgutil
from functools import cache

from seeless.core.family import Family
from seeless.errors import UnsupportedModel
from seeless.families._refused import REFUSED

ENTRY_POINTS = "seeless.families"  # the group in which installed packages name modules that register families

_registered: dict[str, Family] = {}  # by `config.model_type`, those from outside


def register_family(family: Family) -> Family:
    """Make the models of a family known, from a plug-in or a package.

    Args:
        family: with `model_types` that no other family has; one registered before under the same title is replaced.

    Raises:
        UnsupportedModel: it is no `Family`, or another family has one of its `model_types`.

    >>> import seeless as sl
    >>> family = sl.register_family(sl.Family(title="My VLM", model_types=("my_vlm",), tower="encoder"))
    >>> family.model_types
    ('my_vlm',)
    """
    if not isinstance(family, Family):
        raise UnsupportedModel(
            f"{family!r} is no family; write sl.register_family(sl.Family(title=..., model_types=...))"
        )
    for model_type in family.model_types:
        own = _own().get(model_type) or _registered.get(model_type)
        if own is not None and own.title != family.title:
            raise UnsupportedModel(
                f"models of type {model_type!r} already belong to the family {own.title!r}, so {family.title!r} cannot "
                "have them"
            )
    for model_type, known in list(_registered.items()):
        if known.title == family.title:
            del _registered[model_type]
    _registered.update(dict.fromkeys(family.model_types, family))
    return family


def from_outside() -> list[Family]:
    """The families that a plug-in or a package has registered."""
    return list(_registered.values())


def families() -> dict[str, Family]:
    """Every supported `config.model_type` and its family."""
    _load_packages()
    return dict(sorted({**_own(), **_registered}.items()))


def family_of(model_type: str) -> Family:
    """The family of a `config.model_type`.

    Raises:
        UnsupportedModel: none has it; the message says why, or lists those there are.
    """
    known = families()
    if model_type in known:
        return known[model_type]
    if model_type in REFUSED:
        raise UnsupportedModel(f"models of type {model_type!r} are not supported: {REFUSED[model_type]}")
    raise UnsupportedModel(
        f"models of type {model_type!r} are not supported; supported are {', '.join(known)}. A new family is one file "
        "of names, which sl.register_family makes known: see docs/add-a-model.md"
    )


@cache
def _own() -> dict[str, Family]:
    """The families of this package."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            family = importlib.import_module(f"{__name__}.{module.name}").FAMILY
            found.update(dict.fromkeys(family.model_types, family))
    return found


@cache
def _load_packages() -> None:
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        entry.load()
