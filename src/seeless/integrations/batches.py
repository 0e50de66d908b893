"""From prompts to the tensors a model takes in."""

from collections.abc import Sequence
from typing import Any

from seeless import models
from seeless.errors import InputError, with_kind
from seeless.integrations.prompts import Message, Prompt


class UnusablePrompts(InputError):
    """Prompts that the processor, or the chat template, refuses; `reasons` says why, by their places in the batch."""

    def __init__(self, reasons: dict[int, str]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(dict.fromkeys(reasons.values())))


class Batches:
    """Makes a batch of prompts, padded on the left, for one model.

    A video is one to models that take videos; to others its frames are a row of pictures. Prompts are written by the
    processor's chat template; a processor without one gets the pictures' placeholders and then the text, as base
    models like PaliGemma expect it.

    Args:
        processor: of the model.
        images: what its image processor is told about every picture (`{"max_patches": 6}`, say).
    """

    def __init__(self, model: Any, processor: Any, images: dict[str, Any] | None = None) -> None:
        self.model, self.processor, self.images = model, processor, images or {}
        self.takes_videos = models.takes_videos(model)
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token

    def text(self, prompt: Prompt) -> str:
        """The prompt in the model's chat format, with one placeholder per picture or video."""
        messages = [{**each, "content": self._content(each["content"])} for each in prompt.messages]
        if getattr(self.processor, "chat_template", None) is not None:
            return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return "".join(self._plain(part) for message in messages for part in message["content"])

    def _content(self, parts: list[Message]) -> list[dict[str, str]]:
        """The parts without what they show, frames of a video one by one where they are pictures."""
        content: list[dict[str, str]] = []
        for part in parts:
            if part["type"] == "video" and not self.takes_videos:
                content += [{"type": "image"}] * len(part["video"].frames)
            else:
                content.append(part if part["type"] == "text" else {"type": part["type"]})
        return content

    def _plain(self, part: dict[str, str]) -> str:
        return part["text"] if part["type"] == "text" else getattr(self.processor, f"{part['type']}_token")

    def _pictures(self, prompt: Prompt) -> list[Any]:
        """The pictures in the order of their placeholders, with the frames of videos where they are pictures."""
        pictures: list[Any] = []
        for part in prompt.parts:
            if part["type"] == "image":
                pictures.append(part["image"])
            elif part["type"] == "video" and not self.takes_videos:
                pictures += part["video"].frames
        return pictures

    def __call__(self, prompts: Sequence[Prompt]) -> Any:
        """The inputs of `generate`, on the model's device and in its precision.

        Raises:
            UnusablePrompts: some are refused, each by itself too (a picture of odd shape, a text with a placeholder).
        """
        try:
            inputs = self._processed(prompts)
        except ImportError:  # no fault of a prompt
            raise
        except Exception as error:
            reasons = {place: reason for place, prompt in enumerate(prompts) if (reason := self._refusal(prompt))}
            if not reasons:
                raise
            raise UnusablePrompts(reasons) from error
        return inputs.to(self.model.device, self.model.dtype)

    def _refusal(self, prompt: Prompt) -> str:
        """Why a prompt by itself is refused; "" if it is not."""
        try:
            self._processed([prompt])
        except Exception as error:
            return f"the processor refuses it: {with_kind(error)}"
        return ""

    def _processed(self, prompts: Sequence[Prompt]) -> Any:
        texts = [self.text(prompt) for prompt in prompts]
        pictures = [self._pictures(prompt) for prompt in prompts]
        options: dict[str, Any] = {"images_kwargs": dict(self.images)} if self.images else {}
        videos = [part["video"] for prompt in prompts for part in prompt.parts if part["type"] == "video"]
        if videos and self.takes_videos:
            import numpy

            options["videos"] = [numpy.stack([numpy.asarray(frame) for frame in video.frames]) for video in videos]
            options["do_sample_frames"] = False
            options["video_metadata"] = [
                {"total_num_frames": video.numbers[-1] + 1, "fps": video.rate, "frames_indices": video.numbers}
                for video in videos
            ]
        return self.processor(
            images=pictures if any(pictures) else None,
            text=texts,
            padding=True,
            padding_side="left",
            add_special_tokens=self.adds_special(texts[0]),
            return_tensors="pt",
            **options,
        )

    def adds_special(self, text: str) -> bool:
        """Whether the tokenizer must add the start token to a text of `text`."""
        start = self.processor.tokenizer.bos_token
        return start is None or not text.startswith(start)
