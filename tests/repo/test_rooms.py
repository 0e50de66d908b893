"""Who may import whom: the table of rooms, enforced by reading the imports."""

import ast
import re
import sys

import pytest
from source import FILES, PACKAGE, files_of, imports, short, tree, words

import seeless as sl
from seeless.registry import strategy_class

STANDARD = set(sys.stdlib_module_names)
ROOMS = {"ops", "strategies", "families", "core", "pixels"}
ABOVE = sorted({p.relative_to(PACKAGE).parts[0] for p in FILES if len(p.relative_to(PACKAGE).parts) > 1} - ROOMS)
ALLOWED = {
    "ops": ["torch", "seeless.ops"],
    "strategies": [
        "torch",
        *(f"seeless.{m}" for m in ("ops", "strategy", "two_stage", "step", "patches", "context", "tower")),
        *("seeless.decision", "seeless.budget", "seeless.registry", "seeless.errors"),
    ],
    "families": [
        "seeless.core.family",
        "seeless.errors",
        *(f"seeless.families.{path.stem}.FAMILY" for path in files_of("families")),  # close relatives
        "seeless.families._refused",
    ],
    "core": [
        "numpy",  # what is planned on the host
        "torch",
        "transformers.cache_utils",
        "transformers.masking_utils",
        "transformers.modeling_utils.AttentionInterface",  # where every attention module asks for its kernel
        "transformers.modeling_layers",  # wider than architecture.md's table: layers.py must know checkpointed layers
        *(
            f"transformers.{name}" for name in ("AutoConfig", "AutoTokenizer", "CLIPModel")
        ),  # relevance.py: a text tower
        *(f"transformers.{name}" for name in ("SiglipVisionModel", "Siglip2VisionModel")),  # pooling_head.py: its head
        "transformers.vision_utils",  # the order in which a tower with attention windows takes its patches
        *(f"seeless.{m}" for m in ("core", "ops", "strategy", "step", "patches", "context", "tower")),
        *("seeless.decision", "seeless.faults"),
        *(f"seeless.{m}" for m in ("report", "flops", "errors")),
    ],
    "pixels": ["PIL", "numpy", "av", "pillow_heif", "seeless.pixels", "seeless.errors"],
}

# A room above that runs models of its own: what of the core knows nothing of how transformers runs them.
BESIDE = PACKAGE / "integrations" / "vllm"
NAMES = ("capture", "checks", "family", "images", "relevance", "tower_attention", "tower_looks", "units", "vision")
SHARED = [*(f"seeless.core.{name}" for name in (*NAMES, "vision_table")), "seeless.families.family_of"]


def within(name, modules):
    return any(name == module or name.startswith(module + ".") for module in modules)


def outside(path, allowed):
    """Imports that are neither the standard library's nor allowed."""
    return [name for name in imports(path) if name.split(".")[0] not in STANDARD and not within(name, allowed)]


@pytest.mark.parametrize(
    ("room", "path"),
    [(r, p) for r in sorted(ROOMS) for p in files_of(r)],
    ids=lambda x: x if isinstance(x, str) else short(x),
)
def test_a_room_imports_only_what_the_table_allows(room, path):
    assert outside(path, ALLOWED[room]) == []


@pytest.mark.parametrize("path", [p for p in FILES if p.relative_to(PACKAGE).parts[0] in ABOVE], ids=short)
def test_what_is_built_on_top_uses_public_names_only(path):
    own = path.relative_to(PACKAGE).parts[0]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "seeless":
            continue
        if BESIDE in path.parents and within(name, SHARED):
            continue
        hidden = ("core", "families") if own == "vtr" else ("core", "families", "ops")  # vtr holds methods of its own
        assert not set(parts[1:2]) & set(hidden), name
        assert parts[1:2] == [own] or not any(part.startswith("_") and part != "__version__" for part in parts), name


@pytest.mark.parametrize("path", FILES, ids=short)
def test_nobody_but_commands_knows_the_command_line(path):
    if path.relative_to(PACKAGE).parts[0] not in ("cli", "bench"):
        assert [name for name in imports(path) if within(name, ["seeless.cli"])] == []


def test_the_base_modules_know_no_strategy_and_no_room_above():
    modules = ("strategy", "budget", "context", "decision", "report", "flops", "errors", "registry", "overlay")
    for name in (
        *modules,
        "two_stage",
        "patches",
        "tower",
        "context_tower",
        "context_text",
        "shaped",
        "defining",
        "faults",
        "fields",
        "lazy",
    ):
        rooms = ["core", "families", "strategies", *ABOVE]
        bad = [n for n in imports(PACKAGE / f"{name}.py") if within(n, [f"seeless.{room}" for room in rooms])]
        assert bad == [], name


def test_the_rooms_are_there():
    assert all(files_of(room) for room in ROOMS)
    assert imports(PACKAGE / "api.py")  # the reader reads


@pytest.mark.parametrize("path", files_of("ops"), ids=short)
def test_ops_hold_no_modules_and_no_state(path):
    for node in tree(path).body:
        assert not isinstance(node, ast.ClassDef), f"line {node.lineno}: a class"
        if isinstance(node, ast.Assign | ast.AnnAssign):
            assert isinstance(node.value, ast.Constant), f"line {node.lineno}: state"
    assert not any(name in ("torch.nn", "torch.nn.Module") for name in imports(path))


@pytest.mark.parametrize("path", files_of("strategies"), ids=short)
def test_strategies_hook_nothing_and_know_no_model(path):
    forbidden = re.compile(r"hook|rotary|position_ids|past_key_values|attention_mask|self_attn|_proj\b|config\b")
    assert [(line, text) for line, text in words(path) if forbidden.search(text)] == []


@pytest.mark.parametrize("path", [pytest.param(p, id=short(p)) for p in files_of("checking")])
def test_the_oracle_of_the_package_knows_nothing_of_what_it_checks(path):
    """Names of families aside, it sees a strategy only through `apply` and its report."""
    own = [name for name in imports(path) if name.startswith("seeless.")]
    assert [name for name in own if not within(name, ["seeless.checking", "seeless.errors", "seeless.models"])] == []


@pytest.mark.parametrize("path", files_of("families"), ids=short)
def test_families_are_data(path):
    assert not any(within(name, ["torch", "transformers"]) for name in imports(path))


FIELDS = {"scope"}  # of every strategy, by the name of one


def built_in():
    return sorted(n for n in sl.available() if strategy_class(n).__module__.startswith("seeless."))


def names_in(path, names):
    """`(line, name)` of names that occur as words of their own, in code and in messages."""
    pattern = re.compile(rf"\b({'|'.join(names)})\b", re.IGNORECASE)
    return sorted({(line, found) for line, text in words(path) for found in pattern.findall(text)})


@pytest.mark.parametrize("path", [pytest.param(p, id=short(p)) for p in files_of("core")])
def test_the_core_names_no_strategy_and_no_family(path):
    from seeless.families import families

    methods = set(built_in()) - FIELDS
    classes = {strategy_class(name).__name__ for name in methods}
    titles = {re.escape(name) for kind, family in families().items() for name in (kind, family.title)}
    assert names_in(path, sorted(methods | classes | titles)) == []


# What a user reads may name strategies; what decides may not: `note` is text for `seeless info`.
@pytest.mark.parametrize("path", files_of("families"), ids=short)
def test_families_name_no_strategy_outside_their_note(path):
    notes = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.keyword) and node.arg == "note":
            notes |= {sub.lineno for sub in ast.walk(node.value) if isinstance(sub, ast.Constant)}
    assert [hit for hit in names_in(path, built_in()) if hit[0] not in notes] == []


@pytest.mark.parametrize("path", [p for p in files_of("strategies") if p.name != "__init__.py"], ids=short)
def test_one_file_one_strategy_of_the_same_name(path):
    """A variant from the same paper may follow it, as a subclass whose name starts alike."""
    classes = [node.name for node in tree(path).body if isinstance(node, ast.ClassDef)]
    cls = strategy_class(path.stem)
    assert cls.__name__ == classes[0] and cls.__module__ == f"seeless.strategies.{path.stem}"
    names = [name for name in built_in() if strategy_class(name).__module__ == cls.__module__]
    assert sorted(strategy_class(name).__name__ for name in names) == sorted(classes)
    for name in names:
        assert name.startswith(path.stem) and issubclass(strategy_class(name), cls)


@pytest.mark.parametrize("path", files_of("train"), ids=short)
def test_train_imports_its_extras_inside_functions(path):
    top = [node for node in tree(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top for alias in node.names} | {getattr(node, "module", "") for node in top}
    assert not any(
        within(name, ["accelerate", "peft", "PIL", "rich", "Trainer", "TrainingArguments"]) for name in names
    )
