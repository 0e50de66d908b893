"""Question files, files of predictions that go on, and what counts as right."""

import json

import pytest

from seeless.errors import InputError
from seeless.eval.errors import InvalidRequest
from seeless.eval.matching import alike, exact, normalised
from seeless.eval.video_qa import Predictions, VideoQuestion, chunk, find_video, read_questions, score

ONE, TWO = (VideoQuestion(str(number), f"video{number}", "what?", "a Dog") for number in (1, 2))


def files(tmp_path, questions, answers):
    for name, entries in {"q.json": questions, "a.json": answers}.items():
        (tmp_path / name).write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return tmp_path / "q.json", tmp_path / "a.json"


def asked(*ids):
    return [{"video_name": "v", "question_id": each, "question": "?"} for each in ids]


def test_answers_by_place_or_by_id(tmp_path):
    by_place = read_questions(*files(tmp_path, asked("x", 2), [{"answer": "A"}, {"answer": 3}]))
    assert [(each.id, each.answer) for each in by_place] == [("x", "A"), ("2", "3")]
    answers = [{"answer": "B", "question_id": 2}, {"answer": "A", "question_id": "x"}]
    assert [each.answer for each in read_questions(*files(tmp_path, asked("x", 2), answers))] == ["A", "B"]


@pytest.mark.parametrize(
    ("questions", "answers", "message"),
    [
        ("{", [], "neither a JSON list nor JSON lines"),
        ([], [], "no JSON list of objects"),
        ({"a": 1}, [], "one JSON object, not a list of records"),
        ([{"question_id": 1, "question": "?"}], [{"answer": ""}], "record 1 of .* has no 'video_name'"),
        (asked(1, 1), [{"answer": ""}] * 2, "several questions with the id 1"),
        (asked(1, 2), [{"answer": ""}], "1 answers without question_id, .* 2 questions"),
        (asked(1, 2), [{"answer": "", "question_id": 1}], "no answer to 1 questions, 2 for one"),
        (asked(1), [{"reply": ""}], "record 1 of .* has no 'answer'"),
    ],
)
def test_unusable_files(tmp_path, questions, answers, message):
    with pytest.raises(InvalidRequest, match=message):
        read_questions(*files(tmp_path, questions, answers))


def test_chunks_follow_each_other():
    questions = [VideoQuestion(str(number), "v", "?", "") for number in range(7)]
    parts = [chunk(questions, 3, index) for index in range(3)]
    assert [len(part) for part in parts] == [3, 3, 1] and [each for part in parts for each in part] == questions
    with pytest.raises(InvalidRequest, match="from 0 to 2"):
        chunk(questions, 3, 3)


def test_where_videos_are(tmp_path):
    for name in ("a.avi", "a.mkv", "v_b.mov"):
        (tmp_path / name).touch()
    assert find_video(tmp_path, "a").name == "a.avi" and find_video(tmp_path, "b").name == "v_b.mov"
    with pytest.raises(InputError, match="no video c"):
        find_video(tmp_path, "c")


def test_predictions_go_on(tmp_path):
    file = tmp_path / "out" / "predictions.jsonl"
    first = Predictions(file, {"frames": 8})
    first.add(ONE, "a dog")
    first.add_error(TWO, "broken")
    assert json.loads(first.errors.read_text())["error"] == "broken"
    with file.open("a") as stream:
        stream.write('{"id": "2", "pred": "cut o')
    second = Predictions(file, {"frames": 8})
    assert second.broken.startswith('{"id": "2"') and set(second.found) == {"1"} and not second.errors.exists()
    second.add(TWO, "Dog.")
    third = Predictions(file, {"frames": 8})
    assert third.broken == "" and set(third.found) == {"1", "2"}
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"id": "1", "question": "what?", "answer": "a Dog", "pred": "a dog"},
        {"id": "2", "question": "what?", "answer": "a Dog", "pred": "Dog."},
    ]
    found = score([ONE, TWO, VideoQuestion("3", "v", "?", "")], third.found)
    assert (found.questions, found.answered, found.exact, found.normalised) == (3, 2, 0, 2)
    assert found.to_dict()["normalised_accuracy"] == 1


def test_predictions_of_other_settings_or_of_nobody_are_left_alone(tmp_path):
    file = tmp_path / "predictions.jsonl"
    Predictions(file, {"frames": 8}).add(ONE, "x")
    with pytest.raises(InvalidRequest, match="frames=8, not 4"):
        Predictions(file, {"frames": 4})
    with pytest.raises(InvalidRequest, match="keep=None, not 1"):
        Predictions(file, {"frames": 8, "keep": 1})
    file.write_text("no json\n" + file.read_text())
    with pytest.raises(InvalidRequest, match="line 1 of"):
        Predictions(file, {"frames": 8})


def test_matches():
    assert exact(" dog\n", "dog") and not exact("Dog", "dog")
    assert alike("The dog.", "a DOG") and alike("ten", "10") and not alike("dogs", "dog")
    assert normalised("don't -- stop, 3.5 or 1,000?") == "dont stop 3.5 or 1000"
