"""Documents that only the processor, the chat template or the tokenizer refuses: named, and the others are answered."""

import io

import pytest
from lmms_runs import run_here
from lmms_tasks import documents, png, write_tasks
from PIL import Image
from refusing import Refusing

import seeless as sl
from seeless.integrations.answering import Answerer
from seeless.integrations.batches import UnusablePrompts
from seeless.integrations.lmms_eval.documents import BadDocuments
from seeless.integrations.lmms_eval.model import SeelessLM, SeelessLMChat
from seeless.integrations.prompts import prompt_of_text
from seeless.tiny import load_tiny


def refusing():
    model, processor = load_tiny()
    return model, Refusing(processor)


@pytest.mark.parametrize(("cls", "kind"), [(SeelessLM, "written"), (SeelessLMChat, "written"), (SeelessLM, "chosen")])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_picture_that_the_processor_refuses(tmp_path, cls, kind, batch_size):
    docs = documents()
    docs[1]["pictures"] = [png(1, (1, 300))]
    docs[5]["pictures"] = [png(5), png(6, (1, 201))]
    folder = write_tasks(tmp_path, docs)
    lm = cls.around(*refusing(), sl.FastV(keep=0.25), batch_size=batch_size)
    with pytest.raises(BadDocuments) as error:
        run_here(lm, folder, [f"small_{kind}"])
    message = str(error.value)
    assert message.startswith("2 documents cannot be read")
    for number in (1, 5):
        assert f"small_{kind}, document {number}: the processor refuses it: ValueError: absolute aspect" in message
    assert {measure.doc_id for measure in lm.measures} == {0, 2, 3, 4, 6}


def test_a_question_that_the_template_refuses(tmp_path):
    model, processor = load_tiny()
    refuse = "{% if 'secret' in message['content'][-1]['text'] %}{{ raise_exception('no secrets') }}{% endif %}"
    processor.chat_template = "{% for message in messages %}" + refuse + "{% endfor %}" + processor.chat_template
    docs = documents()
    docs[2]["question"] = "which secret digit?"
    lm = SeelessLM.around(model, processor, None, batch_size=4)
    with pytest.raises(BadDocuments, match=r"small_written, document 2: TemplateError: no secrets"):
        run_here(lm, write_tasks(tmp_path, docs), ["small_written"])


def test_choices_without_a_token(tmp_path):
    folder = write_tasks(tmp_path)
    text = (
        (folder / "small_chosen.yaml").read_text().replace("doc_to_choice: choices", "doc_to_choice: !function c.own")
    )
    (folder / "small_chosen.yaml").write_text(text)
    (folder / "c.py").write_text("def own(doc):\n    return ['', 'red'] if doc['answer'] == '3' else doc['choices']\n")
    lm = SeelessLM.around(*load_tiny(), None, batch_size=4)
    with pytest.raises(BadDocuments, match="the answer ' ' has no token") as error:
        run_here(lm, folder, ["small_chosen"])
    named = {number for number in range(7) if f"document {number}:" in str(error.value)}
    assert named == {number for number, doc in enumerate(documents()) if doc["answer"] == "3"}


def test_answers_name_the_prompts_that_are_refused():
    answerer = Answerer(*refusing(), None)
    pictures = [Image.open(io.BytesIO(png(0, size))) for size in ((96, 96), (1, 300))]
    prompts = [prompt_of_text("how many digits are there?", [picture], 8) for picture in pictures]
    for ask in (answerer.answer, lambda prompts: answerer.rate([(each, "3") for each in prompts], 4)):
        with pytest.raises(UnusablePrompts, match="aspect ratio") as error:
            ask(prompts)
        assert list(error.value.reasons) == [1]
        assert len(ask(prompts[:1])) == 1


def test_what_no_prompt_is_to_blame_for_is_raised_as_it_is():
    model, processor = load_tiny()

    def missing(**options):
        raise ImportError("torchvision is needed")

    answerer = Answerer(model, processor, None)
    answerer.batches.processor = missing
    answerer.batches.text = lambda prompt: ""
    answerer.batches.adds_special = lambda text: True
    with pytest.raises(ImportError, match="torchvision"):
        answerer.answer([prompt_of_text("?", [], 8)])
