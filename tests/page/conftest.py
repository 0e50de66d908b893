"""The page, served to a real browser: needs Gradio, Playwright and Chromium (`make test-page`)."""

import importlib.util
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [
    *(f"the package {name}" for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None),
    *([] if CHROMIUM else ["Chromium (apt-get install chromium)"]),
]
# No name but the machine's own is resolved: what the page would fetch from elsewhere fails, as on a machine offline.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
QUIET = ("quic", "background-networking", "component-update", "sync", "gpu")


def pytest_collection_modifyitems(items):
    if MISSING:
        reason = f"make test-page has what is missing here: {', '.join(MISSING)}"
        for item in items:
            if "browser" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """Where the page is served, with the embedded model and nothing else."""
    from seeless.demo.page import Page
    from seeless.demo.serving import serving
    from seeless.demo.shelf import Shelf

    with serving(Page(Shelf(["tiny"])), "127.0.0.1", None) as found:
        yield found


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    arguments = ["--headless", "--no-sandbox", "--no-first-run", OFFLINE, *(f"--disable-{name}" for name in QUIET)]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """Opens the page at a size; afterwards, nothing was asked of anybody else, and no script failed."""
    pages = []

    def open_page(width=1280, height=900):
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(30_000)
        page.asked, page.failed = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.failed.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#preview img")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []
        assert page.failed == []
        page.close()
