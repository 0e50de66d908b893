"""The tables of what runs where: the short one of the README, the whole one of docs/support.md."""

from functools import cache

import torch
from markdown_table import table
from matrix import CASES, STRATEGIES, gap, rows_of

import seeless as sl
from seeless.models import supported_models
from tinies import TINIES, make_inputs
from tiny_models import BACKENDS

FLASH = BACKENDS[-1]  # the tests' stand-in for flash attention: the same masks, computed on any machine


def tinies_of_types() -> dict[str, list]:
    """The tiny models of the contract tests by `model_type`; every supported type has some."""
    found: dict[str, list] = {}
    for tiny in TINIES:
        found.setdefault(tiny.config().model_type, []).append(tiny)
    assert set(found) == set(titles()), "a supported model is not under contract"
    return found


def titles() -> dict[str, str]:
    """What a `model_type` is called."""
    return {kind: model.title for model in supported_models() for kind in model.model_types}


def takes_videos(members: list) -> bool:
    """Whether videos are under contract."""
    return any((tiny, "video") in CASES for tiny in members)


def support_summary() -> str:
    """Models that can do equally much, in one row."""
    alike: dict[tuple, list[str]] = {}
    for kind, members in tinies_of_types().items():
        counts = [sum(gap(tiny, name, "sdpa") is None for name in STRATEGIES) for tiny in members]
        flash = gap(members[0], "uniform", FLASH) is None
        alike.setdefault((min(counts), max(counts), takes_videos(members), flash), []).append(titles()[kind])
    rows = []
    for least, most, video, flash in sorted(alike, key=lambda row: (row[1], row[0], *row[2:]), reverse=True):
        names = ", ".join(dict.fromkeys(alike[least, most, video, flash]))
        count = f"{least}" if least == most else f"{least} to {most}"
        rows.append([names, count, "✓" if video else "–", "✓" if flash else "–"])
    return "\n".join(table(["models", f"methods of {len(STRATEGIES)}", "videos", "flash attention"], rows))


@cache
def model_of(tiny, backend: str) -> torch.nn.Module:
    """The tiny model, built once."""
    return tiny.build(backend)


def refusal(tiny, name: str, backend: str) -> str:
    """The sentence with which a pair that cannot work is refused."""
    model = model_of(tiny, backend)
    inputs = make_inputs(model, tiny, rows_of("image"))
    try:
        with sl.apply(model, STRATEGIES[name]), torch.no_grad():
            model(**inputs)
    except sl.UnsupportedModel as error:
        return str(error).replace(f"{FLASH!r}", "'flash_attention_2'")
    raise AssertionError(f"{name} on {tiny} is named as a gap, but works")


def support_table() -> str:
    """What the contract tests run: every family with every method, on images and videos; a gap says why."""
    names, reasons = sorted(STRATEGIES), []
    tinies = tinies_of_types()

    def cell(members: list, name: str, backend: str) -> str:
        numbers = set()
        for tiny in members:
            if gap(tiny, name, backend) is not None:
                reason = refusal(tiny, name, backend)
                if reason not in reasons:
                    reasons.append(reason)
                numbers.add(reasons.index(reason) + 1)
        return " ".join(f"[{number}]" for number in sorted(numbers)) or "✓"

    read = [tiny for own in tinies.values() for tiny in own if not tiny.unread]
    everywhere = [name for name in names if all(gap(tiny, name, "sdpa") is None for tiny in read)]
    others = [name for name in names if name not in everywhere]

    def all_but(members: list) -> str:
        """A tick, with a note where methods are missing that run on all models whose tower is read."""
        missing = [name for name in everywhere if gap(members[0], name, "sdpa") is not None]
        if not missing:
            return "✓"
        reason = f"without {', '.join(f'`{name}`' for name in missing)}: {refusal(members[0], missing[0], 'sdpa')}"
        if reason not in reasons:
            reasons.append(reason)
        return f"✓ [{reasons.index(reason) + 1}]"

    heads = ["model", "`model_type`", f"{len(everywhere)} methods", *(f"`{n}`" for n in others), "video", "flash"]
    rows = []
    for kind, members in tinies.items():
        cells = [
            all_but(members),
            *(cell(members, name, "sdpa") for name in others),
            "✓" if takes_videos(members) else "–",
            cell(members, "uniform", FLASH),
        ]
        rows.append([titles()[kind], f"`{kind}`", *cells])
    listed = ", ".join(f"`{name}`" for name in everywhere)
    head = f"The {len(everywhere)} methods that run on every model whose tower is read: {listed}."
    notes = [f"[{number}] {reason}  " for number, reason in enumerate(reasons, 1)]
    return "\n".join([head, "", *table(heads, rows), "", *notes]).rstrip()
