"""Documents of a task that cannot be read, and what stands where in a prompt."""

import pytest
from lmms_runs import run_here
from lmms_tasks import documents, png, write_tasks, write_video
from PIL import Image

import seeless as sl
from seeless.integrations import prompts
from seeless.integrations.batches import Batches
from seeless.integrations.lmms_eval.documents import BadDocuments
from seeless.integrations.lmms_eval.model import SeelessLM, SeelessLMChat
from seeless.integrations.prompts import prompt_of_messages, prompt_of_text
from seeless.pixels import read_video
from seeless.tiny import load_tiny


@pytest.mark.parametrize(("cls", "kind"), [(SeelessLM, "written"), (SeelessLMChat, "written"), (SeelessLM, "chosen")])
def test_bad_documents_are_named_and_counted(tmp_path, cls, kind):
    """A cut-off picture, bytes that are none, a missing video: one error that names all three, and no result."""
    docs = [{"video": "", **doc} for doc in documents()]
    docs[1]["pictures"] = [png(1)[:400]]
    docs[3]["pictures"] = [b"no picture"]
    docs[4]["video"] = "gone.mp4"
    folder = write_tasks(tmp_path, docs)
    lm = cls.around(*load_tiny(), sl.FastV(keep=0.25), batch_size=3)
    with pytest.raises(BadDocuments) as error:
        run_here(lm, folder, [f"small_{kind}"])
    message = str(error.value)
    assert message.startswith("3 documents cannot be read, so there is no result over the whole task")
    assert f"small_{kind}, document 1: OSError" in message
    assert f"small_{kind}, document 3: UnidentifiedImageError" in message
    assert f"small_{kind}, document 4: UnreadableVideo: there is no video 'gone.mp4'" in message
    assert {measure.doc_id for measure in lm.measures} == {0, 2, 5, 6}


def test_many_bad_documents_are_counted(tmp_path):
    folder = write_tasks(tmp_path, [{"pictures": [b"x"], "question": "?", "answer": "3"}] * 25)
    with pytest.raises(BadDocuments, match=r"^25 documents(.*\n)+  and 5 more$"):
        run_here(SeelessLM.around(*load_tiny(), None), folder, ["small_written"])


def kinds(prompt) -> list[str]:
    return [part.get("text", part["type"]) for part in prompt.parts]


RED, BLUE = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))


@pytest.mark.parametrize(
    ("text", "pictures", "expected"),
    [
        ("what?", [RED], ["image", "what?"]),
        ("<image>\nwhat?", [RED], ["image", "what?"]),
        ("from <image> to <image>?", [RED, BLUE], ["from", "image", "to", "image", "?"]),
        ("from <image> to there?", [RED, BLUE], ["image", "image", "from", "to there?"]),
        ("what is an <image>?", [], ["what is an", "?"]),
        ("what?", [], ["what?"]),
    ],
)
def test_places_of_pictures(text, pictures, expected, caplog):
    prompts._warn.cache_clear()  # it warns of the same thing once
    prompt = prompt_of_text(text, pictures, 8)
    assert kinds(prompt) == expected
    assert [part["image"].getpixel((0, 0)) for part in prompt.parts if part["type"] == "image"] == [
        picture.getpixel((0, 0)) for picture in pictures
    ]
    assert ("marks" in caplog.text) == (0 < text.count("<image>") != len(pictures))


def test_conversations_and_systems(tmp_path):
    RED.save(tmp_path / "red.png")
    turns = [
        {
            "role": "user",
            "content": [{"type": "image", "url": str(tmp_path / "red.png")}, {"type": "text", "text": "?"}],
        },
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": [{"type": "text", "text": "sure?"}]},
    ]
    prompt = prompt_of_messages(turns, 8, "be brief")
    assert [message["role"] for message in prompt.messages] == ["system", "user", "assistant", "user"]
    assert kinds(prompt) == ["be brief", "image", "?", "red", "sure?"]
    own = [{"role": "system", "content": [{"type": "text", "text": "mine"}]}, *turns]
    assert kinds(prompt_of_messages(own, 8, "be brief"))[:2] == ["mine", "image"]
    with pytest.raises(sl.InputError, match="type 'audio'"):
        prompt_of_messages([{"role": "user", "content": [{"type": "audio", "url": "x"}]}], 8)
    with pytest.raises(sl.InputError, match="a int is no picture"):
        prompt_of_text("?", [3], 8)


def test_frames_of_videos(tmp_path, monkeypatch):
    file = write_video(tmp_path / "scenes.mp4", frames=10)
    video = read_video(file, 4)
    assert video.numbers == [0, 3, 6, 9] and video.rate == 4
    assert [frame.size for frame in video.frames] == [(112, 112)] * 4
    assert read_video(file, 99).numbers == list(range(10))
    frames = [frame.convert("RGB") for frame in read_video(file, 3).frames]
    (part, _) = prompt_of_text("?", [frames], 8).parts
    assert part["video"].frames == frames
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(sl.InputError, match="cannot read the video"):
        read_video(tmp_path / "bad.mp4", 4)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(sl.MissingExtra, match=r'pip install "seeless\[video\]"'):
        read_video(file, 4)


def test_without_a_chat_template():
    """Base models: the pictures' placeholders, then the text."""
    model, processor = load_tiny()
    processor.chat_template = None
    batches = Batches(model, processor)
    prompt = prompt_of_text("what?", [RED, BLUE], 8)
    assert batches.text(prompt) == "<image><image>what?"
    assert int((batches([prompt])["input_ids"] == model.config.image_token_index).sum()) == 288
