"""The site: built without a warning, with what the files say, nothing left out, and nothing fetched from elsewhere."""

import html
import importlib
import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from markdown_it import MarkdownIt
from source import ROOT

import seeless as sl

MADE = {
    "README.md": "index",
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
    "data/README.md": "published",
}
PAGES = MADE | {f"docs/{page.name}": page.stem for page in sorted((ROOT / "docs").glob("*.md"))}
TAGS = {
    "li",
    "ul",
    "ol",
    "table",
    "tr",
    "pre",
    "h1",
    "h2",
    "h3",
    "h4",
    "img",
    "code",
    "strong",
    "em",
    "p",
    "blockquote",
}
REFERENCE = ("seeless", "seeless.tiny", "seeless.reader", "seeless.analysis", "seeless.train", "seeless.vtr")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where `make site` has written it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("source", PAGES)
def test_a_page_is_what_other_readers_of_markdown_make_of_its_file(site, source):
    """As many lists, tables, blocks of code, ...: Markdown differs from one reader to the next."""
    text = re.sub(r"<!--.*?-->", "", (ROOT / source).read_text(), flags=re.DOTALL)
    expected = MarkdownIt("commonmark").enable("table").render(text)
    shown = re.search(r"<article.*?</article>", (site / f"{PAGES[source]}.html").read_text(), re.DOTALL)[0]
    counts = [Counter(tag for tag in re.findall(r"<(\w+)", page) if tag in TAGS) for page in (expected, shown)]
    assert counts[0] == counts[1]


def test_notebooks_are_pages_with_what_they_print_and_show(site):
    for file in (ROOT / "examples").glob("*.ipynb"):
        page = site / "examples" / f"{file.stem}.html"
        text = html.unescape(re.sub("<.*?>", "", page.read_text()))
        shown = re.findall(r'<img alt="png" src="([^"]*)"', page.read_text())
        outputs = [each for cell in json.loads(file.read_text())["cells"] for each in cell.get("outputs", ())]
        assert all(line.strip() in text for each in outputs for line in each.get("text", ()))
        assert len(shown) == sum("data" in each for each in outputs)
        assert all((page.parent / picture).read_bytes().startswith(b"\x89PNG") for picture in shown)


def test_the_reference_has_all_that_is_public(site):
    pages = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    names = [f"{module}.{name}" for module in REFERENCE for name in importlib.import_module(module).__all__]
    assert [name for name in names if f'id="{name}"' not in pages] == []


def test_the_reference_knows_fields_of_strategies(site):
    """They are arguments, although no decorator says so."""
    page = (site / "reference" / "strategies.html").read_text()
    signature = page.partition('id="seeless.FastV"')[2].partition("</pre>")[0]
    assert all(name in re.sub("<.*?>", "", signature) for name in ("keep", "layer", "positions"))


def test_examples_of_docstrings_are_code(site):
    pages = {page.stem: page.read_text() for page in (site / "reference").glob("*.html")}
    assert "&gt;&gt;&gt;" in pages["apply"] and not any("<blockquote" in page for page in pages.values())


def test_nothing_is_fetched_from_elsewhere(site):
    fetched = re.compile(r'<(?:script|img|link rel="(?:stylesheet|preconnect)")[^>]*(?:src|href)="(https?:[^"]*)"')
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES) and [found for page in pages for found in fetched.findall(page.read_text())] == []


def test_a_link_to_a_file_leads_into_the_repository(monkeypatch):
    for folder in ("docs", "release"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    from types import SimpleNamespace

    import site_pages

    page, known = SimpleNamespace(file=SimpleNamespace(src_uri="bench.md")), ("speed.md", "index.md", "speed.png")
    files = SimpleNamespace(get_file_from_path=lambda name: name if name in known else None)
    text = "[a](speed.md#b) [c](../README.md) ![d](speed.png) [e](../src/seeless/flops.py) [f](../nothing.md)"

    def shown(repository):
        monkeypatch.setattr(site_pages, "repository", lambda: repository)
        return site_pages.on_page_markdown(text, page, None, files)

    begin, end = "[a](speed.md#b) [c](index.md) ![d](speed.png) ", " [f](../nothing.md)"
    assert shown("") == f"{begin}e{end}"
    address = f"https://example.org/seeless/blob/v{sl.__version__}/src/seeless/flops.py"
    assert shown("https://example.org/seeless") == f"{begin}[e]({address}){end}"
