"""From records to the tensors a model trains on."""

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from seeless.errors import one_line, with_kind
from seeless.pixels import UnreadableImage, load_image
from seeless.train.bad import BadRecordList
from seeless.train.chat import IGNORED, ChatFormat, Spans
from seeless.train.errors import BadRecords
from seeless.train.records import PICTURE, Record

if TYPE_CHECKING:
    from PIL.Image import Image

BLANK_SIDE = 32
Place = tuple[Sequence[Record], int]


@dataclass(frozen=True)
class _Sample:
    """A record ready for the processor, and its place among all of them; None for none of them."""

    place: Place | None
    text: str
    spans: Spans
    images: "list[Image]"


class Batches:
    """Turns records into one batch of the model's inputs with `labels`, padded on the processor's side.

    A record that turns out bad is reported and its place taken by the next good one: a picture that is none, or that
    the processor refuses; a conversation that the chat template refuses; an answer beyond `max_length`. Records longer
    than `max_length` lose their end, if their pictures and the beginning of an answer are left; `cut` counts those.

    Args:
        processor: of the model; it needs a chat template.
        bad: where bad ones are reported.
        max_length: tokens of a row at most, visual ones included; None: no limit.
        always_a_picture: give a batch without any picture one row more, a blank picture without an answer. It adds
            nothing to the loss, but sends the batch through tower and projector. Processes that train together need
            it: those with pictures would wait for the gradients (DDP) or the weights (FSDP, DeepSpeed) of one that
            never runs the tower.
    """

    def __init__(
        self,
        processor: Any,
        bad: BadRecordList,
        max_length: int | None = None,
        always_a_picture: bool = False,
    ) -> None:
        self.processor, self.bad = processor, bad
        self.max_length, self.always_a_picture = max_length, always_a_picture
        self.chat = ChatFormat(processor)
        self.image_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
        self._cut = multiprocessing.Value("q", 0)  # shared with the processes that load data
        self._unusable: set[Record] = set()

    @property
    def cut(self) -> int:
        """Rows so far that lost their end."""
        return self._cut.value

    def __call__(self, places: Sequence[Place]) -> dict[str, torch.Tensor]:
        """Stack the records at some places."""
        samples = [self._sample(place) for place in places]
        while True:
            inputs = self._processed(samples)
            too_long = [row for row in range(len(samples)) if self._too_long(inputs, row)]
            if not too_long:
                return self._shortened(inputs)
            for row in too_long:
                place = samples[row].place
                if place is None:
                    raise BadRecords(f"a picture alone takes more than --max-length {self.max_length} tokens")
                reason = f"no answer within the first {self.max_length} tokens, or pictures beyond them"
                self._report(place[0][place[1]], reason)
                samples[row] = self._sample(place)

    def _sample(self, place: Place) -> _Sample:
        """The record at a place, or the first good one after it."""
        records, number = place
        for at in (*range(number, len(records)), *range(number)):
            record = records[at]
            if record in self._unusable:
                continue
            try:
                images = [load_image(source) for source in record.images]
            except UnreadableImage as error:
                self._report(record, str(error))
                continue
            try:
                text, spans = self.chat.render(record.turns)
            except Exception as error:  # templates refuse what they do not provide for
                self._report(record, f"cannot be put into the chat format: {one_line(error)}")
                continue
            return _Sample((records, at), text, spans, images)
        raise BadRecords(f"not one of {len(records)} records can be trained on; see {self.bad.file}")

    def _report(self, record: Record, reason: str) -> None:
        self._unusable.add(record)
        self.bad.found(record, reason)

    def _blank(self) -> _Sample:
        from PIL import Image

        text = self.chat.prompt((("user", f"{PICTURE}\nWhat is this?"),))
        return _Sample(None, text, [], [Image.new("RGB", (BLANK_SIDE, BLANK_SIDE))])

    def _processed(self, samples: list[_Sample]) -> dict[str, torch.Tensor]:
        """What the processor makes of the samples; the places of those it refuses are taken by others."""
        while True:
            if self.always_a_picture and not any(sample.images for sample in samples):
                samples.append(self._blank())
            try:
                return self._process(samples)
            except Exception:  # a picture of odd shape, say
                reasons = [sample.place and self._refusal(sample) for sample in samples]
                if not any(reasons):
                    raise
            for row, reason in enumerate(reasons):
                if not reason or (place := samples[row].place) is None:
                    continue
                self._report(place[0][place[1]], f"the processor refuses it: {reason}")
                samples[row] = self._sample(place)

    def _refusal(self, sample: _Sample) -> str:
        """Why the processor refuses a sample by itself; "" if it does not."""
        try:
            self._process([sample])
        except Exception as error:
            return with_kind(error)
        return ""

    def _process(self, samples: list[_Sample]) -> dict[str, torch.Tensor]:
        texts = [sample.text for sample in samples]
        images = [sample.images for sample in samples]
        inputs = self.processor(
            images=images if any(images) else None,
            text=texts,
            padding=True,
            add_special_tokens=self.chat.adds_special(texts[0]),
            return_tensors="pt",
        )
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        for row, sample in enumerate(samples):
            real = inputs["attention_mask"][row].bool()
            ids = inputs["input_ids"][row][real].tolist()
            found = self.chat.labels(sample.text, sample.spans, ids, len(sample.images))
            labels[row, real] = torch.tensor(found)
        return {**inputs, "labels": labels}

    def _too_long(self, inputs: dict[str, torch.Tensor], row: int) -> bool:
        """Whether cutting this row would leave no answer or not all of its pictures."""
        real = inputs["attention_mask"][row].bool()
        labels, ids = inputs["labels"][row][real], inputs["input_ids"][row][real]
        if self.max_length is None or len(ids) <= self.max_length:
            return False
        answers = (labels != IGNORED).nonzero()[:, 0]
        pictures = (ids == self.image_id).nonzero()[:, 0]
        needed = max([int(place[which]) for place, which in ((answers, 0), (pictures, -1)) if len(place)])
        return needed >= self.max_length

    def _shortened(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rows of at most `max_length` tokens, padded as before."""
        mask = inputs["attention_mask"].bool()
        longest = int(mask.sum(1).max())
        if self.max_length is None or longest <= self.max_length:
            return inputs
        with self._cut.get_lock():
            self._cut.value += int((mask.sum(1) > self.max_length).sum())
        left = self.processor.tokenizer.padding_side == "left"
        padding = {"labels": IGNORED, "input_ids": self.processor.tokenizer.pad_token_id}
        shorter = dict(inputs)
        for name, tensor in inputs.items():
            if tensor.shape == mask.shape:
                rows = [tensor[row][mask[row]][: self.max_length] for row in range(len(mask))]
                width = max(map(len, rows))
                shorter[name] = torch.full((len(rows), width), padding.get(name, 0), dtype=tensor.dtype)
                for row, values in enumerate(rows):
                    place = slice(width - len(values), None) if left else slice(len(values))
                    shorter[name][row, place] = values
        return shorter
