"""Whether this tree can be released, and under which tag.

    python release/check_release.py [TAG]

Compares the version of the package with CHANGELOG.md, CITATION.cff and the tag, and asks for the address of the
repository, from which links and pictures of the index page are made. Says what is missing, and then ends with 1.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def found(root: Path, file: str, pattern: str) -> str | None:
    """The first group of a pattern in a file, None where nothing fits."""
    match = re.search(pattern, (root / file).read_text(encoding="utf-8"), re.MULTILINE)
    return match and match[1]


def missing(root: Path, tag: str | None) -> list[str]:
    """What keeps the tree in `root` from being released under `tag`, in sentences; None: any tag would do."""
    version = found(root, "src/seeless/__init__.py", r'^__version__ = "(.+)"$')
    assert version is not None
    date = found(root, "CHANGELOG.md", rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$")
    faults = []
    if tag is not None and tag != f"v{version}":
        faults.append(f"the tag is {tag}, and the package's version {version}: tag it v{version}")
    if date is None:
        faults.append(f"CHANGELOG.md has no heading '## [{version}] - YEAR-MONTH-DAY'")
    cited = found(root, "CITATION.cff", r"^version: (.+)$"), found(root, "CITATION.cff", r"^date-released: (.+)$")
    wanted = version, date or cited[1]
    if cited != wanted:
        faults.append(f"CITATION.cff has version and date {cited[0]}, {cited[1]}; give {wanted[0]}, {wanted[1]}")
    if not found(root, "pyproject.toml", r'^repository = "(.+)"$'):
        faults.append("pyproject.toml names no repository: set it in [tool.hatch.metadata.hooks.custom]")
    return faults


def main() -> None:
    sys.exit("\n".join(missing(ROOT, sys.argv[1] if len(sys.argv) > 1 else None)) or 0)


if __name__ == "__main__":
    main()
