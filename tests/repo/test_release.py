"""What a release needs, and that the workflows ask for what is there."""

import re
import shutil

import pytest
import yaml
from source import ROOT

import seeless as sl

FILES = ("src/seeless/__init__.py", "CHANGELOG.md", "CITATION.cff", "pyproject.toml")
NAMED = ("pyproject.toml", '^repository = ".*"', 'repository = "https://example.org/someone/seeless"')
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture
def missing(monkeypatch, tmp_path):
    """What is missing after a pattern of a file is replaced, in a copy that names a repository."""
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    import check_release

    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    def after(name, pattern, new, tag=f"v{sl.__version__}"):
        for file, *change in (NAMED, (name, pattern, new)):
            text, count = re.subn(*change, (tmp_path / file).read_text(), count=1, flags=re.MULTILINE)
            assert count == 1
            (tmp_path / file).write_text(text)
        return check_release.missing(tmp_path, tag)

    return after


def test_nothing_but_the_address_of_the_repository_is_missing(missing):
    assert missing("CITATION.cff", "^type", "type") == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("CHANGELOG.md", r"^## \[\d.*\] - .*$", "## [Unreleased]"), "CHANGELOG.md has no heading"),
        (("CITATION.cff", "^version: .*$", "version: 0.0.1"), "CITATION.cff has version and date 0.0.1"),
        (("CITATION.cff", "^date-released: .*$", "date-released: 2020-01-01"), "2020-01-01"),
        (("pyproject.toml", "^repository = .*$", 'repository = ""'), "names no repository"),
        (("CITATION.cff", "^type", "type", "v9.9"), "the tag is v9.9"),
    ],
)
def test_what_is_missing_is_said(missing, change, part):
    (fault,) = missing(*change)
    assert part in fault


def test_the_citation_is_in_its_format():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "type", "license"} <= set(cited)
    assert cited["cff-version"] == "1.2.0" and cited["license"] == "Apache-2.0"


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_ask_for_targets_and_files_that_are_there(file):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for job in yaml.safe_load(file.read_text())["jobs"].values():
        assert job["timeout-minutes"] and all("@" in step["uses"] for step in job["steps"] if "uses" in step)
        for program, *words in (
            re.sub(r"\$\{\{.*?\}\}", "", step["run"]).split() for step in job["steps"] if "run" in step
        ):
            assert program != "make" or {word for word in words if "=" not in word} <= set(targets)
            assert program != "python" or (ROOT / words[0]).is_file()
