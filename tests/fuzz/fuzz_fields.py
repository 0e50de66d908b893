"""Strategies with fields drawn by chance, as plain data: `(name, fields)`; a router's members by layer."""

from random import Random
from typing import Any

from matrix import BY_CLIP, CLIP

import seeless as sl
from seeless.vtr import VTRConfig
from tinies import LAYERS

Spec = tuple[str, dict[str, Any]]

TOWER = ("tome", "flowcut", "mustdrop", "pixelprune")
ENTRY = (
    *("anchorprune", "cdpruner", "divprune", "dycoke", "eadp", "evs", "fastervlm", "fastvid", "hiprune", "holov"),
    *("mmtok", "pool", "prumerge", "prumerge_plus", "prunesid", "scope", "vidcom2", "visionzip", "vispruner"),
)
LAYER = ("clse", "dart", "fastv", "priortr", "priortr_2f", "pyramiddrop", "random", "sparsevlm", "tops", "uniform")
TWO_STAGES = ("flashvid", "holitom", "prunevid", "vscan")
FROM_THE_ENTRY = ("random", "uniform", "tops")  # may act before layer 0
OWN_COUNT = ("dycoke", "mustdrop", "pixelprune", "prumerge", "prumerge_plus", "prunevid")
WITH_THRESHOLD = ("fastv", "priortr", "random", "pyramiddrop", "fastervlm", "evs", "clse")
SCOPES = ("row", "image", "crop", "frame")
QUESTION = "how many digit are there ?"


def share(r: Random, low: float = 0.02, high: float = 1.0) -> float:
    return round(r.uniform(low, high), 3)


def draw_keep(r: Random) -> float | int:
    """A budget; often one that drops nothing, or all but one token."""
    return r.choice([1.0, 1, 500, 2, r.randint(1, 20), r.randint(1, 20), share(r), share(r), share(r), share(r)])


def draw_keeps(r: Random, count: int) -> list[float | int]:
    """Budgets of several stages, none larger than the one before; often equal ones."""
    shares = r.random() < 0.6
    found = [share(r, 0.05) if shares else r.randint(1, 20) for _ in range(count)]
    if r.random() < 0.2:
        found[-1] = found[0]
    return sorted(found, reverse=True)


def words(r: Random, least: int = 1) -> list[int]:
    return [r.randint(3, 89) for _ in range(r.randint(least, 4))]


def own_fields(r: Random, name: str) -> dict[str, Any]:
    """Values of the fields that one strategy alone has, of which some are taken."""
    fields: dict[str, dict[str, Any]] = {
        "anchorprune": {
            "anchor": share(r, 0.05),
            "most": share(r, 0.1),
            "novelty": share(r),
            "patience": r.randint(1, 4),
        },
        "clse": {"cutoff_ratio": r.choice([0.0, 0.1, 0.5]), "temperature": r.choice([0.05, 1.0])},
        "dart": {"visual_pivots": r.randint(1, 6), "text_pivots": r.randint(0, 6)},
        "dycoke": {"drop": share(r, 0.0, 0.95), "as_released": True},
        "eadp": {"mu": share(r), "as_released": False, "gamma": share(r)},
        "evs": {"threshold": r.choice([0.1, 0.5, 1.0])},
        "fastervlm": {"padding": True},
        "fastv": {"query_aggregation": "question"},
        "fastvid": {"context": share(r), "segments": r.randint(1, 4), "step": r.randint(1, 3), "beta": share(r)},
        "flashvid": {
            "version": "v1",
            "expansion": r.choice([1.0, 1.5]),
            "diverse": share(r),
            "segments": r.randint(1, 4),
        },
        "flowcut": {},
        "hiprune": {"alpha": share(r), "layer": r.choice([0, 1]), "as_released": False},
        "holitom": {"similarity": share(r), "beta": share(r), "later": share(r, 0.1)},
        "holov": {"chunks": r.choice([1, 2, 3, 5, 100]), "within": "score"},
        "mmtok": {"alpha": share(r), "words": "all"},
        "mustdrop": {"window": r.choice([2, 3]), "flat": r.choice([-1.0, 0.0, 0.5]), "total": 0.05, "largest": 0.05},
        "pixelprune": {"tolerance": r.choice([0.0, 0.5, 0.9]), "deviation": 0.2, "anchored": False},
        "priortr": {"query_aggregation": "last", "head_aggregation": "max", "last_row": False},
        "priortr_2f": {"query_aggregation": "last", "prior_layer": "next"},
        "prumerge": {"neighbours": r.choice([0, 1, 3, 32])},
        "prumerge_plus": {"neighbours": r.choice([0, 1, 3, 32])},
        "prunesid": {"groups": share(r, 0.1), "base": r.choice([2.0, 32.0]), "most": r.randint(1, 5)},
        "prunevid": {
            "similarity": share(r),
            "clusters": share(r, 0.1),
            "later": share(r, 0.1),
            "windows": share(r, 0.1),
        },
        "random": {"seed": r.randint(-3, 100)},
        "scope": {"alpha": share(r), "combined": "add"},
        "sparsevlm": {"version": "2.0", "heads": r.randint(1, 5), "seed": r.randint(0, 9)},
        "tome": {"first": r.choice([0, 1]), "proportional": True},
        "tops": {"diversity": share(r), "coverage": share(r), "scaled": "minmax"},
        "vidcom2": {"temperature": r.choice([0.001, 0.1, 10.0])},
        "visionzip": {"contextual_share": r.choice([0.0, 0.1, 0.3, 0.7, 0.95])},
        "vispruner": {"important_ratio": r.choice([0.0, 0.1, 0.5, 0.9, 1.0]), "as_released": False},
        "vscan": {"expansion": r.choice([1.0, 1.5, 2.0]), "later": share(r, 0.1), "windows": r.choice([1, 2, 4])},
    }
    own = fields.get(name, {})
    return {field: value for field, value in own.items() if r.random() < 0.35}


def draw_strategy(r: Random, name: str, axes: bool) -> Spec:
    """A strategy of a name; with `axes`, positions have several and are not renumbered."""
    fields: dict[str, Any] = {}
    if name in LAYER:
        fields |= draw_layers(r, name)
    elif name not in OWN_COUNT or (name in ("prumerge", "prumerge_plus") and r.random() < 0.5):
        fields["keep"] = draw_keep(r)
    if name in TWO_STAGES and r.random() < 0.6:
        fields["layer"] = r.randint(1, LAYERS - 1)
    fields |= own_fields(r, name)
    if name == "priortr_2f" and r.random() < 0.3:
        fields |= {"prior_mode": "template", "after": words(r), "before": words(r), "between": words(r, 0)}
    if name in BY_CLIP:
        fields["clip"] = CLIP
    if name in (*BY_CLIP, "mmtok"):
        fields["question"] = QUESTION
    if name in WITH_THRESHOLD and name != "evs" and r.random() < 0.1:
        fields["threshold"] = r.choice([0.0, 0.02, 0.05, -0.01, 0.3, 1e9])
    if name not in (*TOWER, *TWO_STAGES) and r.random() < 0.3:
        fields["scope"] = r.choice(SCOPES)
    for field, values, chance in (
        ("past", ("keep", "trim"), 0.35),
        ("positions", ("keep",) if axes else ("keep", "renumber"), 0.3),
        ("newlines", (True, False), 0.2),
    ):
        if r.random() < chance:
            fields[field] = r.choice(values)
    return name, fields


def draw_layers(r: Random, name: str) -> dict[str, Any]:
    """Layers and budgets, one or several; sometimes those the method has by itself."""
    if name in ("clse", "pyramiddrop", "sparsevlm", "tops") and r.random() < 0.25:
        return {"keep": draw_keeps(r, 3) if r.random() < 0.5 else draw_keep(r)}
    first = 0 if name in FROM_THE_ENTRY else 1
    count = r.choice([1, 1, 1, 2, 3])
    layers = sorted(r.sample(range(first, LAYERS), count))
    if count == 1:
        return {"layer": layers[0], "keep": draw_keep(r)}
    return {"layer": layers, "keep": draw_keeps(r, count)}


def draw_vtr(r: Random, possible: list[str]) -> Spec | None:
    """A configuration of PriorTR's framework; None where none of its methods is possible."""
    names = [name for name in ("clse", "fastv", "priortr", "sparsevlm", "vispruner") if name in possible]
    if not names:
        return None
    name, count = r.choice(names), r.choice([1, 1, 2])
    fields: dict[str, Any] = {"strategy": name}
    layers = r.sample(range(LAYERS + 2), count)  # 0 and those behind the last are possible, too
    fields["prune_layer"] = layers if count > 1 else layers[0]
    if r.random() < 0.6:
        fields["keep_tokens"] = r.randint(0, 20)
    elif r.random() < 0.7:
        fields["keep_ratio"] = share(r)
    else:
        fields["score_threshold"] = r.choice([0.0, 0.05, -0.1])
    if r.random() < 0.3:
        fields["query_aggregation"] = r.choice(["last", "question", "auto"])
    if r.random() < 0.2:
        fields["head_aggregation"] = "max"
    return "vtr", fields


def draw_router(r: Random, possible: list[str], axes: bool) -> Spec | None:
    """A router of strategies with one budget each; None where none is possible."""
    members, left = {}, 1.0
    for layer in sorted(r.sample(range(LAYERS), r.randint(1, 3))):
        names = [name for name in (LAYER if layer else (*ENTRY, *FROM_THE_ENTRY)) if name in possible]
        if not names:
            return None
        name, fields = draw_strategy(r, r.choice(names), axes)
        fields.pop("threshold", None)
        left = fields["keep"] = max(0.02, round(left * r.uniform(0.3, 1.0), 3))
        if "layer" in fields or layer:
            fields["layer"] = layer
        members[layer] = name, fields
    return "router", members


def build(spec: Spec) -> sl.Strategy | VTRConfig:
    """The strategy, or the recipe for one.

    Raises:
        SeelessError: its fields do not go together.
    """
    name, fields = spec
    if name == "vtr":
        return VTRConfig(**fields)
    if name == "router":
        return sl.Router({layer: build(member) for layer, member in fields.items()})
    return sl.get(name, **fields)
