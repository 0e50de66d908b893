"""Every method says what docs/methods.md shows of it, and the parser reads it."""

import inspect

import pytest

import seeless as sl
from seeless.cli.facts import BASELINE, FACTS, facts_of, missing_facts, remarks_of
from seeless.registry import strategy_class

BUILT_IN = [name for name in sl.available() if strategy_class(name).__module__.startswith("seeless.")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_method_gives_its_facts(name):
    cls = strategy_class(name)
    lacking = missing_facts(inspect.cleandoc(cls.__doc__ or ""), cls.paper)
    assert not lacking, f"{cls.__module__}.{cls.__name__}: " + "; ".join(lacking)
    assert cls.paper in facts_of(inspect.cleandoc(cls.__doc__)).get("Paper", ""), (
        "Paper: has another number than paper ="
    )


def test_what_is_missing_is_named():
    doc = "Keep the first.\n\nFormula: score_j = -j.\nPaper: A. Body, section 3."
    assert [sentence.split("'")[1] for sentence in missing_facts(doc, "arXiv 1234.56789")] == [
        "Signal: ...",
        "Original: ...",
        "Deviations: ...",
    ]
    assert [sentence.split("'")[1] for sentence in missing_facts(doc, "")] == ["Signal: ..."]
    assert set(BASELINE) < set(FACTS)


def test_facts_end_where_the_next_begins_or_a_paragraph_ends():
    doc = (
        "Sum up.\n\nFormula: a\nb: c.\nSignal: none.\n\nA remark\non two lines.\n\nDeviations:\n- one\n  more\n- two"
        "\n\nNot Formula: this is prose."
    )
    assert facts_of(doc) == {"Formula": "a b: c.", "Signal": "none.", "Deviations": "- one\n  more\n- two"}
    assert remarks_of(doc) == ["A remark on two lines.", "Not Formula: this is prose."]
