"""What an index shows of a release: links, pictures, addresses; and that it takes both files."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from readme_renderer import markdown
from source import ROOT

import seeless as sl

ADDRESS = "https://example.org/someone/seeless"
README = (ROOT / "README.md").read_text()
LINKED = re.compile(r'(?:href|src)="([^"]*)"')


def metadata(folder, repository):
    """What hatchling would write for an index if pyproject.toml named this repository."""
    for name in ("README.md", "LICENSE", "NOTICE", "src/seeless/__init__.py", "release/index_page.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    text, count = re.subn(
        '^repository = ".*"$', f'repository = "{repository}"', (ROOT / "pyproject.toml").read_text(), flags=re.M
    )
    assert count == 1
    (folder / "pyproject.toml").write_text(text)
    done = subprocess.run([sys.executable, "-m", "hatchling", "metadata"], cwd=folder, capture_output=True, check=True)
    return json.loads(done.stdout)


def targets(text):
    """Of all links and pictures of a page, as an index renders it, but for those within the page."""
    return [target for target in LINKED.findall(markdown.render(text)) if not target.startswith("#")]


def test_links_and_pictures_lead_into_the_repository_at_the_tag(tmp_path):
    found = metadata(tmp_path, ADDRESS + "/")
    shown, own = targets(found["readme"]["text"]), targets(README)
    assert len(shown) == len(own) and sum("/raw/" in target for target in shown) == README.count("![")
    for target, before in zip(shown, own, strict=True):
        if before.startswith("https:"):
            assert target == before
        else:
            assert re.fullmatch(rf"{ADDRESS}/(raw|blob)/v{re.escape(sl.__version__)}/{re.escape(before)}", target)
            assert (ROOT / before.partition("#")[0]).is_file(), before
    assert found["urls"]["Repository"] == ADDRESS
    assert all(address.startswith(ADDRESS) for address in found["urls"].values())


def test_without_a_repository_no_link_leads_to_a_file(tmp_path):
    found = metadata(tmp_path, "")
    assert not found.get("urls") and "](docs/" not in found["readme"]["text"]
    assert all(target.startswith("https:") for target in targets(found["readme"]["text"]))
    assert "docs/support.md" in found["readme"]["text"]  # as text


def test_code_is_left_alone(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    from index_page import page

    code = "```python\nx = table[0](row)\n```\nand `y[1](z)`\n"
    assert page(code + "[a](b.md)\n", ADDRESS, "1.0") == code + f"[a]({ADDRESS}/blob/v1.0/b.md)\n"


@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_an_index_takes_what_is_built(kind, tmp_path):
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, capture_output=True, check=True)
    (built,) = tmp_path.iterdir()
    check = [sys.executable, "-m", "twine", "check", "--strict", str(built)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
