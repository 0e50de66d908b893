"""`seeless demo` where it cannot start; the page itself is tested in tests/demo and tests/page."""

import pytest

from seeless.demo import serving
from seeless.errors import InputError


def test_without_gradio_the_extra_is_named(seeless, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "seeless\[demo\]"'):
        serving.check_gradio()


def test_it_offers_reader_unless_told(seeless, monkeypatch):
    offered = []

    def serve(page, *_):
        offered.append(page.shelf.names)
        raise InputError("enough")

    monkeypatch.setattr(serving, "check_gradio", lambda: None)
    monkeypatch.setattr(serving, "serving", serve)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert "enough" in seeless("demo").err and "enough" in seeless("demo", "--model", "tiny").err
    assert offered == [["reader"], ["tiny"]]


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--model", "lava"], 2, "no model is called 'lava'; did you mean llava"),
        (["--model", "tiny", "--model", "./nowhere"], 6, "no such folder"),
        (["--port", 0], 2, "--port"),
    ],
)
def test_what_it_cannot_serve_is_said_before_it_listens(seeless, monkeypatch, flags, code, said):
    monkeypatch.setattr(serving, "check_gradio", lambda: None)
    monkeypatch.setattr(serving, "serving", lambda *_: pytest.fail("it listens"))
    outcome = seeless("demo", *flags)
    assert (outcome.code, outcome.out) == (code, "") and said in outcome.err
