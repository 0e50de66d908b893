"""What the page shows, without the page: every number and picture against `apply`, `generate` and the report itself."""

import dataclasses
import io

import pytest
from PIL import Image
from saved_models import save_llava

import seeless as sl
from seeless.demo.answering import MOST_METHODS, answer_side_by_side, methods_with_budget
from seeless.demo.asked import FRAMES, questions_about, task_of
from seeless.demo.page import Page
from seeless.demo.rendering import answers_html
from seeless.demo.shelf import MOST_MODELS, Shelf
from seeless.eval.nominal import at_budget
from seeless.named.errors import UnloadableModel
from seeless.pixels import UnreadableImage, UnreadableVideo
from seeless.tiny import draw_scene
from video_files import write_video

SCENE = 3


@pytest.fixture(scope="module")
def shelf():
    return Shelf(["tiny"])


@pytest.fixture(scope="module")
def loaded(shelf):
    return shelf.load("tiny")


def ask(loaded, methods, budget=0.25, by="keep", task=None):
    return list(answer_side_by_side(loaded, task or task_of(None, SCENE, None, "tiny"), methods, budget, by, repeats=0))


def generate(loaded, strategy, image, question):
    """The answer and the report, by the library's own two calls."""
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    prompt = loaded.processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = loaded.processor(images=image, text=prompt, return_tensors="pt")
    with sl.apply(loaded.model, strategy) as run:
        ids = loaded.model.generate(**inputs, max_new_tokens=32, do_sample=False)
    return loaded.processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip(), run.report


def same(a, b):
    return a.size == b.size and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("by", ["keep", "average"])
def test_columns_are_what_apply_and_generate_give(loaded, by):
    scene, methods = draw_scene(SCENE), ["fastv", "pyramiddrop", "pool"]
    (answers,) = ask(loaded, methods, 0.4, by)
    assert [column.name for column in answers.columns] == ["none", *methods] and answers.notes == []
    whole, *others = answers.columns
    answer, _ = generate(loaded, sl.Uniform(keep=1.0), scene.image, scene.questions[0].text)
    assert (whole.answer, whole.layers, whole.numbers["tokens kept"]) == (answer, [144] * 8, "144")
    picture = scene.image.resize((480, 480))
    assert same(whole.stages[0].kept[0], picture) and whole.stages[0].scores == []
    for column in others:
        answer, report = generate(loaded, at_budget(column.name, 0.4, by=by), scene.image, scene.questions[0].text)
        assert (column.answer, column.right) == (answer, answer == scene.questions[0].answer)
        assert column.layers == [rows[0] for rows in report.visual]
        assert column.numbers["tokens/layer"] == f"{report.average_tokens:.0f}"
        assert column.numbers["GFLOPs"] == f"{report.flops_after.total / 1e9:.3g}"
        assert len(column.stages) == len(report.stages) == (3 if column.name == "pyramiddrop" else 1)
        for number, stage in enumerate(column.stages):
            assert f"{report.stages[number].n_before[0]} → {report.stages[number].n_after[0]}" in stage.title
            assert same(stage.kept[0], report.overlay(picture, stage=number))
            if report.stages[number].scores is None:
                assert stage.scores == []
            else:
                assert same(stage.scores[0], report.heat_map(picture, stage=number))


def test_times_come_second_and_change_nothing_else(loaded):
    task = task_of(None, SCENE, None, "tiny")
    early, late = answer_side_by_side(loaded, task, ["random"], 0.25, "keep", repeats=1)
    assert {column.numbers["prefill"] for column in early.columns} == {"-"}
    for before, after in zip(early.columns, late.columns, strict=True):
        assert after.numbers["prefill"].endswith(" ms") and after.numbers["decode step"].endswith(" ms")
        assert {**after.numbers, "prefill": "-", "decode step": "-"} == before.numbers
        assert dataclasses.replace(after, numbers=before.numbers) == before


def test_a_method_that_cannot_says_so_in_its_column_and_the_others_go_on(loaded):
    (answers,) = ask(loaded, ["cdpruner", "fastv"])
    whole, refused, fastv = answers.columns
    with pytest.raises(sl.SeelessError) as error:
        sl.models.check_strategy(loaded.model, sl.get("cdpruner", keep=0.25))
    assert refused.trouble == " ".join(str(error.value).split()) and refused.stages == []
    assert whole.answer and fastv.answer and fastv.trouble == ""
    (answers,) = ask(loaded, ["cdpruner", "pixelprune"])  # none of them can
    assert all(column.trouble for column in answers.columns[1:]) and answers.columns[0].layers == [144] * 8


def test_none_and_too_many_methods_are_refused(loaded):
    for methods in ([], methods_with_budget()[: MOST_METHODS + 1]):
        with pytest.raises(sl.InputError, match=f"{len(methods)} methods are chosen; choose 1 to {MOST_METHODS}"):
            ask(loaded, methods)


def test_a_slider_can_set_what_is_offered():
    offered = methods_with_budget()
    assert {"fastv", "pyramiddrop", "sparsevlm", "tome"} <= set(offered) and "pixelprune" not in offered


def test_a_video_is_frames_in_a_row_to_a_model_of_pictures(loaded, tmp_path):
    pytest.importorskip("av")
    write_video(tmp_path / "clip.mp4")
    task = task_of(str(tmp_path / "clip.mp4"), None, "how many digits are there?", "tiny")
    (answers,) = ask(loaded, ["fastervlm"], task=task)
    assert answers.notes == [
        f"the model takes no videos of their own; it sees {FRAMES} frames of it as pictures in a row"
    ]
    _, column = answers.columns
    assert column.layers == [36 * FRAMES] * 8
    kept, scores = column.stages[0].kept, column.stages[0].scores
    assert len(kept) == len(scores) == FRAMES and {image.size for image in kept} == {(240, 240)}
    assert len({image.tobytes() for image in kept}) == FRAMES


def test_words_a_model_does_not_know_are_said(loaded):
    (answers,) = ask(loaded, ["uniform"], task=task_of(None, SCENE, "which digit is mauve?", "tiny"))
    assert answers.notes == ["the model's vocabulary does not have every word of the question"]


def test_pictures_and_scenes_and_what_is_none(tmp_path):
    scene = draw_scene(5)
    scene.image.save(tmp_path / "mine.png")
    own, drawn = task_of(str(tmp_path / "mine.png"), 5, " why? ", "tiny"), task_of(None, 5, None, "tiny")
    assert same(own.images[0], scene.image) and (own.question, own.sources) == ("why?", ["mine.png"])
    assert drawn.question == scene.questions[0].text and drawn.right_answer == scene.questions[0].answer
    assert questions_about(None, 5, "tiny") == [question.text for question in scene.questions]
    assert questions_about(str(tmp_path / "mine.png"), 5, "tiny") == questions_about(None, 5, None) == []
    for number in (None, -1, 0.5, 1e12):
        with pytest.raises(sl.InputError, match="there is no picture; choose a file, or give a number to draw for"):
            task_of(None, number, "why?", "tiny")
    for question in ("", "  ", "x" * 2000):
        with pytest.raises(sl.InputError, match="the question is empty or longer"):
            task_of(None, 5, question, "tiny")


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("broken.png", draw_scene(0).image, UnreadableImage, "breaks off|damaged|truncated"),
        ("empty.jpg", b"", UnreadableImage, "it is empty"),
        ("letter.pdf", b"%PDF-1.7\n", UnreadableImage, "a PDF document"),
        ("film.mp4", b"no film at all", UnreadableVideo, "cannot read the video"),
    ],
)
def test_files_that_cannot_be_read_are_named_as_the_visitor_did(tmp_path, name, content, error, said):
    if name == "film.mp4":
        pytest.importorskip("av")
    if isinstance(content, Image.Image):
        data = io.BytesIO()
        content.save(data, "PNG")
        content = data.getvalue()[:500]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=said) as refused:
        task_of(str(tmp_path / name), None, "what?", "tiny")
    assert name in str(refused.value) and str(tmp_path) not in str(refused.value)


def test_a_shelf_holds_one_model_at_a_time(tmp_path):
    shelf = Shelf(["tiny", str(save_llava(tmp_path / "two"))])
    first = shelf.load("tiny")
    assert shelf.load("tiny") is first and shelf.embedded("tiny") == "tiny" and not shelf.embedded(shelf.names[1])
    assert shelf.load(shelf.names[1]).model.config.text_config.num_hidden_layers == 4
    assert shelf.load("tiny") is not first
    with pytest.raises(sl.InputError, match="offers no model 'gpt'; it offers tiny"):
        shelf.load("gpt")
    with pytest.raises(sl.InputError, match=f"1 to {MOST_MODELS} models, not 17"):
        Shelf([f"a/{number}" for number in range(17)])
    with pytest.raises(UnloadableModel, match=r"no config\.json"):
        Shelf([str(tmp_path)])


def test_the_page_answers_in_sentences(shelf):
    page = Page(shelf)
    for given, said in (
        (["gpt", None, SCENE, "why?", ["fastv"], "keep", 0.25], "offers no model"),
        (["tiny", None, None, "why?", ["fastv"], "keep", 0.25], "there is no picture"),
        (["tiny", None, SCENE, "why <image>?", ["fastv"], "keep", 0.25], "&lt;image&gt; in it"),
        (["tiny", None, SCENE, "why?", [], "keep", 0.25], "0 methods are chosen"),
    ):
        (html,) = page.answer(*given)
        assert 'role="alert"' in html and said in html


def test_a_question_of_the_visitors_own_stays(shelf):
    page, (first, second) = Page(shelf), (draw_scene(seed).questions[0].text for seed in (0, 1))
    shown, question, proposed = page.show("tiny", None, 0, "", "")
    assert (question, proposed) == (first, first) and "<img" in shown and "held-out scene 0" in shown
    assert page.show("tiny", None, 1, first, first)[1:] == (second, second)
    assert page.show("tiny", None, 1, "mine?", first)[1:] == ("mine?", second)
    assert 'role="alert"' in page.show("tiny", None, None, "mine?", first)[0]


def test_nothing_a_visitor_writes_becomes_markup(loaded):
    (answers,) = ask(loaded, ["uniform"])
    evil = "<script>alert(1)</script>\"'"
    columns = [
        dataclasses.replace(answers.columns[0], answer=evil, name=evil),
        dataclasses.replace(answers.columns[1], trouble=evil),
    ]
    html = answers_html(evil, dataclasses.replace(answers, columns=columns, notes=[evil]))
    assert "<script" not in html and html.count("&lt;script&gt;") >= 5
