"""A hook of mkdocs: what the site shows of files outside docs/, and where links between files lead there.

The README is the home page; CONTRIBUTING.md, CHANGELOG.md, data/README.md and examples/*.ipynb are pages, too.
Links to other files lead into the repository that pyproject.toml names; without one they are text.
"""

import posixpath
import re
import sys
from pathlib import Path

from hatchling.metadata.core import load_toml
from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

import seeless as sl

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "release"))

from index_page import in_repository, moved  # noqa: E402

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "data/README.md": "published.md",
}
PAGES |= {f"examples/{file.name}": f"examples/{file.stem}.md" for file in sorted((ROOT / "examples").glob("*.ipynb"))}


def repository():
    """Its address, as pyproject.toml has it."""
    project = load_toml(str(ROOT / "pyproject.toml"))
    return project["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"].rstrip("/")


def on_files(files, config):
    """Add the pages made of files outside docs/, and the pictures in notebooks."""
    for source, name in PAGES.items():
        file = ROOT / source
        if file.suffix == ".ipynb":
            text, others = MarkdownExporter().from_filename(str(file), {"unique_key": file.stem})
            files.append(File.generated(config, name, content=text))
            for picture, content in others["outputs"].items():
                files.append(File.generated(config, posixpath.join(posixpath.dirname(name), picture), content=content))
        else:
            files.append(File.generated(config, name, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links lead to the pages that files have become, or into the repository; what is for the tests alone goes."""
    sources = {name: source for source, name in PAGES.items()}
    here = page.file.src_uri
    source = sources.get(here, f"docs/{here}")

    def target(link: str, picture: bool) -> str | None:
        path, hash_, anchor = link.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        name = PAGES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(name) is not None and (path in PAGES or path.startswith("docs/")):
            return posixpath.relpath(name, posixpath.dirname(here) or ".") + hash_ + anchor
        if not (ROOT / path).exists():
            return link  # wrong, which mkdocs finds
        return in_repository(path + hash_ + anchor, picture, repository(), sl.__version__)

    return moved(re.sub(r"^( *```\w+) no-run$", r"\1", markdown, flags=re.MULTILINE), target)
