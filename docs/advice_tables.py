"""The table of uses in docs/choose.md, from the rules that `seeless advise` goes by."""

from markdown_table import table

from seeless.advice.advising import built_in
from seeless.advice.suiting import facts_of, suits
from seeless.advice.uses import USES, Use
from seeless.integrations.vllm.served import MODEL_TYPES


def methods_for(use: Use) -> list[str]:
    """The methods that suit a use on some model."""
    return [name for name in built_in() if suits(use, facts_of(name, MODEL_TYPES))]


def uses_table() -> str:
    """What for, with which methods, beginning with how many tokens, and why."""
    rows = []
    for use in USES:
        names = ", ".join(f"`{name}`" for name in methods_for(use))
        because = " ".join([*(need.reason for need in use.needs), use.why])
        rows.append([use.title, names, str(use.budget), because])
    return "\n".join(table(["what for", "methods", "begin with", "because"], rows))
