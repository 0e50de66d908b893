"""What an index shows of a release: the project's addresses, and a README whose links and pictures work there.

The README links to files beside it. An index has none of them, so they become addresses in the repository, at the tag
of the release. Without an address of the repository, pictures are left out and links are plain text.
"""

import re
import warnings
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|mailto:|#)[^)\s]+)\)")


def page(readme: str, repository: str, version: str) -> str:
    """`readme` for an index."""

    def elsewhere(link: re.Match) -> str:
        if not repository:
            return "" if link["picture"] else link["text"]
        kind = "raw" if link["picture"] else "blob"
        return f"{link['picture']}[{link['text']}]({repository}/{kind}/v{version}/{link['target']})"

    done, parts = 0, []
    for code in CODE.finditer(readme):
        parts += [LINK.sub(elsewhere, readme[done : code.start()]), code[0]]
        done = code.end()
    return "".join([*parts, LINK.sub(elsewhere, readme[done:])])


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
