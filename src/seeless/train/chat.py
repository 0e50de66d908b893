"""Conversations in a model's own chat format, and which of their tokens are answers."""

import re
from typing import Any

from seeless.errors import UnsupportedModel
from seeless.train.records import PICTURE

IGNORED = -100  # what the loss of transformers leaves out
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
Turns = tuple[tuple[str, str], ...]
Spans = list[tuple[int, int]]


class ChatFormat:
    """How a processor writes a conversation, and where the answers are in what it writes.

    An answer's tokens are those of its text and of what closes it (an end token), nothing of what announces it. The
    answers are found in the text, by the template's generation blocks where it has them, else by rendering the
    conversation turn by turn, each a prefix of the next; from the text to the tokens by the tokenizer's offsets. A
    template that closes answers with nothing (LLaVA-1.5's, say) gets the tokenizer's end token behind each, so that
    the model learns to end.

    Raises:
        UnsupportedModel: there is no chat template, or no fast tokenizer.
    """

    def __init__(self, processor: Any) -> None:
        template = getattr(processor, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        if template is None:
            raise UnsupportedModel(
                f"{type(processor).__name__} has no chat template, so conversations cannot be put into its format; "
                "give it one (processor.chat_template) and save it with the model"
            )
        if not processor.tokenizer.is_fast:
            raise UnsupportedModel(
                f"{type(processor.tokenizer).__name__} is a slow tokenizer, which cannot say where a token stands in "
                "the text; a fast one is needed"
            )
        self.processor, self.tokenizer, self._template = processor, processor.tokenizer, template
        self._blocks = GENERATION.search(template) is not None
        self._closing = ""
        text, spans = self.render((("user", "question"), ("assistant", "answer")))
        if text[spans[0][0] :].rstrip().endswith("answer"):
            self._closing = self.tokenizer.eos_token or ""

    def messages(self, turns: Turns) -> list[dict[str, Any]]:
        """The turns as `transformers` takes them, pictures as items of their own where `<image>` stood."""
        return [{"role": role, "content": self._content(role, text)} for role, text in turns]

    def _content(self, role: str, text: str) -> list[dict[str, str]]:
        if role == "assistant":
            return [{"type": "text", "text": text.strip() + self._closing}]
        content: list[dict[str, str]] = []
        for number, piece in enumerate(text.split(PICTURE)):
            if number:
                content.append({"type": "image"})
            if piece.strip():
                content.append({"type": "text", "text": piece.strip()})
        return content

    def render(self, turns: Turns) -> tuple[str, Spans]:
        """The text of a conversation, pictures still one placeholder each, and the spans of its answers.

        Raises:
            UnsupportedModel: the template does not say where the answers are.
        """
        messages = self.messages(turns)
        text, spans = self._blocks_of(messages) if self._blocks else self._prefixes_of(messages)
        answers = sum(role == "assistant" for role, _ in turns)
        if len(spans) != answers:
            raise UnsupportedModel(f"the chat template marks {len(spans)} of {answers} answers as generated")
        return text, [(start, start + len(text[start:end].rstrip())) for start, end in spans]

    def prompt(self, turns: Turns) -> str:
        """The text of a conversation that waits for an answer."""
        return self.processor.apply_chat_template(self.messages(turns), tokenize=False, add_generation_prompt=True)

    def _blocks_of(self, messages: list[dict[str, Any]]) -> tuple[str, Spans]:
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered: Any = render_jinja_template(
            conversations=[messages],
            chat_template=self._template,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        texts, spans = rendered
        return texts[0], list(spans[0])

    def _prefixes_of(self, messages: list[dict[str, Any]]) -> tuple[str, Spans]:
        write = self.processor.apply_chat_template
        text, spans = write(messages, tokenize=False), []
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                before = write(messages[:number], tokenize=False, add_generation_prompt=True)
                after = write(messages[: number + 1], tokenize=False)
                if not (after.startswith(before) and text.startswith(after)):
                    raise UnsupportedModel(
                        f"the chat template rewrites turn {number + 1} once there are more turns, so that its answers "
                        "cannot be told from the rest; give the template {% generation %} blocks"
                    )
                spans.append((len(before), len(after)))
        return text, spans

    def adds_special(self, text: str) -> bool:
        """Whether the tokenizer must add the start token to a rendered conversation."""
        start = self.tokenizer.bos_token
        return start is None or not text.startswith(start)

    def labels(self, text: str, spans: Spans, ids: list[int], pictures: int) -> list[int]:
        """The labels of a row: its ids on the answers, -100 elsewhere.

        Args:
            text: from `render`.
            spans: from `render`, beside it.
            ids: what the processor made of the text: every picture's placeholder as often as it has visual tokens.
            pictures: how many there are.

        Raises:
            UnsupportedModel: the ids are not those of the text with pictures put in.
        """
        plain = self.tokenizer(text, add_special_tokens=self.adds_special(text), return_offsets_mapping=True)
        places = _places(plain["input_ids"], ids)
        if places is None or (pictures == 0 and plain["input_ids"] != ids):
            raise self._rewritten()
        labels = [IGNORED] * len(ids)
        for start, end in spans:
            own = [n for n, (left, right) in enumerate(plain["offset_mapping"]) if left < end and right > start]
            first, last = places[own[0]], places[own[-1]]
            if last - first != own[-1] - own[0]:
                raise self._rewritten()
            labels[first : last + 1] = ids[first : last + 1]
        return labels

    def _rewritten(self) -> UnsupportedModel:
        return UnsupportedModel(
            f"{type(self.processor).__name__} changes more of the text than the pictures' placeholders, so that the "
            "answers cannot be found among its tokens"
        )


def _places(plain: list[int], ids: list[int]) -> list[int] | None:
    """Where each token of the plain text stands in `ids`, from the end; None if it is no subsequence of them.

    What a picture was expanded to lies between. A token just before a picture may be found inside it (a line break,
    say), but no token of an answer: it is followed by nothing or by text.
    """
    places, at = [], len(ids) - 1
    for token in reversed(plain):
        while at >= 0 and ids[at] != token:
            at -= 1
        if at < 0:
            return None
        places.append(at)
        at -= 1
    return places[::-1]
