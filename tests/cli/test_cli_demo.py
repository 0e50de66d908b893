"""`seeless demo` where it cannot start; the page itself is tested in tests/demo and tests/page."""

import pytest

from seeless.demo import serving


def test_without_gradio_the_extra_is_named(seeless, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "seeless\[demo\]"'):
        serving.check_gradio()


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
