"""What docs/choose.md says of methods: which read the question, which do not."""

import re

import pytest
import torch
from source import ROOT

import seeless as sl
from seeless.tiny import draw_scene, load_tiny

PAGE = (ROOT / "docs" / "choose.md").read_text()
NAMES = {
    kind: re.findall(r"`(\w+)`", re.search(rf"<!-- {kind} -->(.+?)<!-- end -->", PAGE, re.DOTALL)[1])
    for kind in ("blind", "reading")
}
QUESTIONS = ("how many digits are there?", "what colour is the 7?")


@pytest.fixture(scope="module")
def asked():
    model, processor = load_tiny()
    found = []
    for question in QUESTIONS:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        found.append(processor(images=draw_scene(3).image, text=prompt, return_tensors="pt"))
    return model, found


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names])
def test_another_question_keeps_other_tokens_or_not(asked, kind, name):
    model, questions = asked
    kept = []
    for inputs in questions:
        strategy = sl.get(name) if name == "pyramiddrop" else sl.get(name, keep=0.25)
        with sl.apply(model, strategy) as run, torch.no_grad():
            model(**inputs)
        kept.append(run.report.stages[0].kept[0].tolist())
    assert (kept[0] == kept[1]) == (kind == "blind")
    assert (run.report.stages[0].layer == 0) >= (kind == "blind")
