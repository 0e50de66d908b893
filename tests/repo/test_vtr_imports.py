"""The files of `seeless.vtr` import each other in one direction."""

import pytest
from source import files_of, imports, short


def neighbours():
    names = {path.stem for path in files_of("vtr")} - {"__init__"}
    found = {}
    for path in files_of("vtr"):
        if path.stem != "__init__":
            parts = [name.split(".") for name in imports(path) if name.startswith("seeless.vtr.")]
            found[path.stem] = {p[2] for p in parts if p[2] in names}
    return found


def test_there_is_no_circle():
    left = neighbours()
    assert left["guest"] >= {"base", "config", "registry"}  # the reader reads
    while left:
        ready = [name for name, needs in left.items() if not needs & set(left)]
        assert ready, f"a circle among {sorted(left)}"
        for name in ready:
            del left[name]


@pytest.mark.parametrize("path", [path for path in files_of("vtr") if path.stem != "__init__"], ids=short)
def test_nothing_is_imported_from_the_whole_room(path):
    """That would be a circle through `__init__`."""
    assert [name for name in imports(path) if name.startswith("seeless.vtr") and name.count(".") < 3] == []
