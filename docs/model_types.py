"""The table of docs/models.md: every type of model that the newest transformers maps to pictures and text."""

from markdown_table import table
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES

import seeless as sl
from seeless.core.host import TESTED, version
from seeless.models import check_model_type, supported_models

UNWRITTEN = "no family describes it yet; [add-a-model.md](add-a-model.md) says how to write one"


def newest() -> bool:
    """Whether the installed transformers is the release whose types the table lists."""
    return version().startswith(f"{TESTED[1]}.")


def reason(name: str) -> str:
    """Why models of a type are not supported."""
    try:
        check_model_type(name)
    except sl.UnsupportedModel as error:
        text = str(error)
    said = f"models of type {name!r} are not supported: "
    return text.removeprefix(said) if text.startswith(said) else UNWRITTEN


def model_types_table() -> str:
    """A row for each type: the family, or the reason."""
    titles = {name: model.title for model in supported_models() for name in model.model_types}
    rows = [
        [f"`{name}`", "yes", titles[name]] if name in titles else [f"`{name}`", "no", reason(name)]
        for name in sorted(CLASSES)
    ]
    return "\n".join(table(["`model_type`", "supported", ""], rows))


def model_types_summary() -> str:
    """How many there are, in a sentence."""
    known = {name for model in supported_models() for name in model.model_types}
    own = sum(name in known for name in CLASSES)
    return (
        f"{own} of the {len(CLASSES)} types of models that transformers {TESTED[1]} maps to pictures and text are "
        "supported; [docs/models.md](docs/models.md) has the reason for each of the others."
    )
