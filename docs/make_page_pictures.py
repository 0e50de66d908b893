"""Take the pictures of the page that docs/demo.md shows, in Chromium: `make page-pictures`."""

import shutil
from pathlib import Path

from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

from seeless.demo.page import METHODS, Page
from seeless.demo.serving import serving
from seeless.demo.shelf import Shelf
from seeless.named.checkpoints import READER

DOCS = Path(__file__).parent
DRAWING = 0
MORE = "pyramiddrop"  # beside the methods that are chosen at first
WIDE, PHONE = {"width": 1500, "height": 900}, {"width": 390, "height": 844}
TIMED = "n => [...document.querySelectorAll('#results dl')].filter(e => / ms/.test(e.innerText)).length >= n"


def ask(tab: Tab, address: str) -> None:
    """Opens the page, adds a method, asks what is proposed, and waits for all columns and their times."""
    tab.set_default_timeout(300_000)
    tab.goto(address)
    tab.wait_for_selector("#preview img")
    tab.get_by_label("Without one: what is drawn for").fill(str(DRAWING))
    methods = tab.get_by_label("Methods, up to 4")
    methods.click()
    methods.type(MORE)
    methods.press("Enter")
    methods.press("Escape")
    tab.get_by_role("button", name="Ask", exact=True).click()
    tab.wait_for_function(TIMED, arg=2 + len(METHODS))


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with serving(Page(Shelf([READER])), "127.0.0.1", None) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox"])
        for name, size in (("demo.png", WIDE), ("demo-phone.png", PHONE)):
            tab = browser.new_page(viewport=size)
            ask(tab, address)
            if size == PHONE:
                tab.locator("#results section").nth(1).evaluate("section => section.scrollIntoView()")
            tab.screenshot(path=DOCS / name, full_page=size == WIDE)
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
