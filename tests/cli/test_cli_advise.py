"""`seeless advise` on the embedded model and on random weights."""

import json

import pytest

from seeless import SeelessError


def test_advice_ends_in_a_line_that_runs(seeless):
    outcome = seeless("advise", "tiny")
    assert outcome.code == 0, outcome.err
    text = outcome.out
    for title in ("several questions about one picture", "one question", "small print", "videos", "train", "serve"):
        assert title in text
    assert "Nothing is published about these methods near these budgets for the embedded model tiny." in text
    assert "LLaVA-1.5-7B, a model of the same model_type, llava" in text
    assert "Measured here, medians of 2 rounds on" in text and "speed-up" in text and "table" in text
    line = text.splitlines()[-1]
    import seeless as sl
    from seeless.tiny import load_tiny

    model = load_tiny()[0]
    eval(line, {"sl": sl, "model": model}).remove()
    assert line.startswith('sl.apply(model, "') and "keep=32" in line


def test_without_a_name_it_is_about_reader(seeless, monkeypatch):
    seen = []

    def begin(loaded, workload, candidates, *_):
        budgets = [one.fields["keep"] for one in candidates]
        seen.append((loaded.model.config.image_seq_length, workload.picture, budgets))
        raise SeelessError("enough")

    monkeypatch.setattr("seeless.advice.measuring.timed", begin)
    assert "enough" in seeless("advise").err
    assert seen == [(576, (192, 192), [128] * 4)]


def test_as_json_with_a_wish(seeless, monkeypatch):
    """A wish that a busy machine may miss, too: then it says so."""
    monkeypatch.setattr("seeless.advice.choosing.MEASURED", 1)
    asked = ("advise", "--arch", "llava-1.5-7b", "--scale", "1/64", "--layers", "2", "--questions", "one")
    outcome = seeless(*asked, "--latency", "0.99", "--json")
    assert outcome.code in (0, 1), outcome.err
    data = json.loads(outcome.out)
    assert (data["model"], data["published_as"], data["chosen"]["use"]) == ("llava-1.5-7b", "LLaVA-1.5-7B", "question")
    assert {each["use"] for each in data["uses"]} >= {"conversation", "small print", "video", "training", "serving"}
    whole, *runs = data["measured"]
    assert whole["strategy"] == "none" and all(row["fields"] for row in runs) and data["versions"]["torch"]
    assert all(each["citation"] and each["model"] == "LLaVA-1.5-7B" for each in data["published"])
    assert data["chosen"]["latency"] == {"seconds": None, "share": 0.99}
    reached = 1 / runs[0]["speed_up"]["first"] <= 0.99
    assert reached == (outcome.code == 0) == (data["chosen"]["method"] == runs[0]["strategy"])
    assert reached or "nothing measured here reaches" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--questions", "two"], 2, "'two' is neither one nor many"),
        (["--latency", "soon"], 2, "--latency soon is no time"),
        (["--image-size", "big"], 2, "--image-size 'big'"),
        (["--scale", "2"], 2, "--scale 2 is no share"),
        (["--frames", "4"], 2, "LLaVA-1.5 takes no videos of their own"),
        (["llavaa"], 2, "no model is called 'llavaa'; did you mean llava"),
        (["tiny", "--arch", "llava-1.5-7b"], 2, "not both"),
        (["no/such-model"], 6, "no/such-model"),
        (["--arch", "llava-9"], 2, "no architecture is called 'llava-9'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_faults_are_a_sentence(seeless, arguments, code, message):
    outcome = seeless("advise", *arguments)
    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert message in " ".join(outcome.err.split())


def test_without_pyarrow(seeless, monkeypatch):
    monkeypatch.setattr("seeless.eval.published.can_read", lambda: False)
    outcome = seeless("advise")
    assert outcome.code == 3 and 'pip install "seeless[published]"' in outcome.err
