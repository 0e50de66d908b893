"""What an index shows of a release: the project's addresses, and a README whose links and pictures work there.

The README links to files beside it. An index has none of them, so they become addresses in the repository, at the tag
of the release. Without an address of the repository, pictures are left out and links are plain text.
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|mailto:|#)[^)\s]+)\)")


def moved(text: str, target: Callable[[str, bool], str | None]) -> str:
    """`text` with every link to a file, outside of code, leading where `target` says.

    Args:
        text: of a page, in Markdown.
        target: of what a link has now and whether it is a picture makes what it shall have, or None: then a picture is
            left out, and a link becomes its text.
    """

    def replaced(link: re.Match) -> str:
        new = target(link["target"], bool(link["picture"]))
        if new is None:
            return "" if link["picture"] else link["text"]
        return f"{link['picture']}[{link['text']}]({new})"

    done, parts = 0, []
    for code in CODE.finditer(text):
        parts += [LINK.sub(replaced, text[done : code.start()]), code[0]]
        done = code.end()
    return "".join([*parts, LINK.sub(replaced, text[done:])])


def in_repository(path: str, picture: bool, repository: str, version: str) -> str | None:
    """The address of a file at the tag of a release; None where there is no repository."""
    return f"{repository}/{'raw' if picture else 'blob'}/v{version}/{path}" if repository else None


def page(readme: str, repository: str, version: str) -> str:
    """`readme` for an index."""
    return moved(readme, lambda target, picture: in_repository(target, picture, repository, version))


def addresses(repository: str, version: str) -> dict[str, str]:
    """What an index lists beside the page."""
    if not repository:
        return {}
    return {
        "Repository": repository,
        "Issues": f"{repository}/issues",
        "Documentation": f"{repository}/tree/v{version}/docs",
        "Changelog": f"{repository}/blob/v{version}/CHANGELOG.md",
    }


class IndexPage(MetadataHookInterface):
    """Fills `readme` and `urls` when hatchling builds."""

    def update(self, metadata: dict) -> None:
        repository = self.config["repository"].rstrip("/")
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = page(readme, repository, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = addresses(repository, metadata["version"])
        if not repository:
            warnings.warn("pyproject.toml names no repository: the index page has no pictures and no links to files")
