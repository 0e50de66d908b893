"""What a visitor sees and does, in Chromium."""

import re

import pytest

from seeless.demo.page import METHODS
from seeless.tiny import draw_scene

pytestmark = pytest.mark.browser
TIMED = re.compile(r"prefill\s*[\d.]+ ms")


def answered(page):
    """Waits until all columns are there with their times."""
    page.wait_for_function(
        "n => [...document.querySelectorAll('#results dl')].filter(e => / ms/.test(e.innerText)).length >= n",
        arg=1 + len(METHODS),
    )


def images(page):
    return page.eval_on_selector_all("#results img", "all => all.map(each => each.src)")


def ask(page):
    page.get_by_role("button", name="Ask", exact=True).click()
    answered(page)


def add_method(page, typed):
    """Chooses the method whose name begins so beside those that are chosen."""
    methods = page.get_by_label("Methods, up to 4")
    methods.click()
    methods.type(typed)
    methods.press("Enter")
    methods.press("Escape")


def test_ask_and_move_the_slider(visit):
    page, scene = visit(), draw_scene(0)
    question = page.get_by_label("Question")
    page.wait_for_function("document.querySelector('#question input, #question textarea').value != ''")
    assert question.input_value() == scene.questions[0].text
    ask(page)
    text = page.inner_text("#results")
    assert scene.questions[0].text in text and "144 → 36" in text and len(TIMED.findall(text)) == 3
    before = images(page)
    assert len(before) == 5  # the picture, and of two methods what was kept and the scores
    slider = page.get_by_role("slider")
    slider.focus()
    for _ in range(10):
        slider.press("ArrowRight")
    page.wait_for_function("document.querySelector('#results').innerText.includes('144 → 50')")  # 35 %
    answered(page)
    after = images(page)
    assert after[0] == before[0] and after[1] != before[1] and after[3] != before[3]  # what was kept
    assert after[2] == before[2] and after[4] == before[4]  # the scores


def test_stage_by_stage(visit):
    page = visit()
    add_method(page, "pyramid")
    ask(page)
    column = page.get_by_role("region", name="pyramiddrop")
    page.wait_for_selector("section[aria-label=pyramiddrop] dl")
    assert not column.locator("ol").is_visible()
    column.get_by_text("stage by stage (3)").click()
    stages = column.locator("ol > li")
    assert [stages.nth(i).locator("img").count() for i in range(3)] == [2, 2, 2]
    assert "before layer 2: 144 → 90 tokens" in stages.nth(0).inner_text()
    assert (
        column.get_by_role("img", name=re.compile("visual tokens in layers 0 to 7: 144, 144, 90, 90, 57")).count() == 1
    )


def test_by_keyboard_alone(visit):
    page = visit()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.closest('[id]')?.id + ' ' + document.activeElement.type"))
        if page.evaluate("!!document.activeElement.closest('#question')"):
            break
    assert any(each.startswith("upload") for each in reached[:-1]), reached
    asked = (
        "how many ${6 * 7} {{value}} <b id=evil>digits</b> are there?"  # shown as it is, whatever templates make of it
    )
    page.keyboard.press("Control+A")
    page.keyboard.type(asked)
    page.keyboard.press("Enter")
    answered(page)
    assert page.inner_text("#results h2") == asked


def test_every_input_has_a_name(visit):
    page = visit()
    names = page.eval_on_selector_all(
        "input, textarea, select, button",
        "all => all.map(e => e.ariaLabel || [...(e.labels || [])].map(l => l.innerText).join() || e.innerText.trim())",
    )
    assert len(names) >= 8 and all(names), names


def test_a_picture_of_ones_own_and_a_bad_one(visit, tmp_path):
    page = visit()
    scene = draw_scene(7)
    scene.image.save(tmp_path / "mine.png")
    upload = page.locator("#upload input[type=file]")
    upload.set_input_files(tmp_path / "mine.png")
    page.wait_for_function("document.querySelector('#preview').innerText.includes('mine.png')")
    ask(page)
    assert len(images(page)) == 5 and "right" not in page.inner_text("#results")

    (tmp_path / "broken.png").write_bytes((tmp_path / "mine.png").read_bytes()[:600])
    page.get_by_role("button", name="Remove this file").or_(page.locator("#upload [aria-label='Clear']")).first.click()
    page.wait_for_function("document.querySelector('#preview').innerText.includes('held-out scene')")
    upload.set_input_files(tmp_path / "broken.png")
    page.wait_for_selector("#preview [role=alert]")
    said = page.inner_text("#preview [role=alert]")
    assert "cannot read the picture broken.png" in said and "truncated" in said and str(tmp_path.parent) not in said
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_selector("#results [role=alert]")
    assert "broken.png" in page.inner_text("#results")


def test_a_file_that_is_too_large_is_refused_in_a_sentence(visit, tmp_path):
    page = visit()
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(51 * 2**20)
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "large.png")
    page.get_by_text(re.compile(r"exceed the maximum allowed size of 50\.0 Mb")).first.wait_for()


def test_a_method_that_cannot_says_so_beside_those_that_can(visit):
    page = visit()
    add_method(page, "cdpruner")
    ask(page)
    assert "CLIP's text tower" in page.get_by_role("region", name="cdpruner").inner_text()


def test_it_fits_a_phone(visit):
    page = visit(390, 844)
    ask(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(
        "[...document.querySelectorAll('#results section')].every(e => e.scrollWidth <= e.clientWidth)"
    )
