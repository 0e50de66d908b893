"""Whether what a family says of its models is true: methods of every kind, against the mask oracle."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

import seeless as sl
from seeless.checking.layer_loop import LayerLoop, is_recurrent
from seeless.checking.oracle import Decoder, cuts_of, follow
from seeless.checking.prompts import NO_WORDS, ROWS, Pictures, Prompts, Videos, make_prompts
from seeless.checking.shrinking import shrunk
from seeless.checking.weights import spread
from seeless.errors import one_line, with_kind

NEW_TOKENS = 3
NEAR = 1e-4  # logits of two ways to compute the same, in float32, as a share of the largest
LARGEST = 50_000_000  # weights of a tiny model
APART = 1e-3  # logits of two models that differ

METHODS: dict[str, sl.Strategy] = {
    "a cut at the entry": sl.Uniform(keep=0.4, positions="keep"),
    "the same, positions without gaps": sl.Uniform(keep=0.4, positions="renumber"),
    "a cut at the entry by the tower's attention": sl.FasterVLM(keep=5, positions="keep"),
    "a cut by the attention of a layer that has run": sl.FastV(keep=0.5),
    "cuts by the attention of layers to come": sl.PyramidDrop(keep=[0.75, 0.5, 0.25], positions="keep"),
    "the same, positions renumbered": sl.PyramidDrop(keep=[0.75, 0.5, 0.25], positions="renumber"),
}
OF_VIDEOS = {
    "videos: a cut at the entry": sl.Uniform(keep=0.4, scope="frame", positions="keep"),
    "videos: a cut at the entry by the tower's attention": sl.FasterVLM(keep=5, positions="keep"),
    "videos: cuts by the attention of layers to come": sl.PyramidDrop(keep=[0.75, 0.5, 0.25], positions="keep"),
}
RENUMBERED = ("the same, positions without gaps", "the same, positions renumbered")


@dataclass(frozen=True)
class Outcome:
    """What came of one check: it holds, the model refuses it in a sentence, or it fails."""

    what: str
    state: Literal["holds", "refused", "fails"]
    detail: str = ""


def check_family(config: Any, model_class: Any) -> list[Outcome]:
    """Check a family on a tiny random model.

    Args:
        config: of a model of the family, of any size; a small one is made from it.
        model_class: of `transformers`, made from a config.

    Raises:
        UnsupportedModel: no tiny model comes of it, it takes no picture, or no family has its `model_type`.
    """
    from seeless.models import family_named

    family = family_named(config.model_type)
    model = build(config, model_class, family.mrope)
    return Check(model, family).outcomes()


def class_of(config: Any) -> Any:
    """The class of `transformers` that makes a model of a config.

    Raises:
        UnsupportedModel: its mapping of pictures and text to text has none.
    """
    from transformers import AutoModelForImageTextToText

    mapping: Any = AutoModelForImageTextToText._model_mapping  # type: ignore[attr-defined]
    if type(config) not in mapping:
        raise sl.UnsupportedModel(
            f"AutoModelForImageTextToText makes no model of a {type(config).__name__}; register it in a plug-in: "
            f"AutoModelForImageTextToText.register({type(config).__name__}, ...)"
        )
    return mapping[type(config)]


def build(config: Any, model_class: Any, mrope: bool) -> Any:
    """A tiny random model, in float32, with eager attention.

    Raises:
        UnsupportedModel: none comes of this config.
        MissingExtra: the model is made with a package that is not installed.
    """
    from seeless.models import naming_packages

    try:
        small = shrunk(config, mrope)
        with naming_packages(config.model_type), torch.device("meta"):
            numbers = sum(weight.numel() for weight in model_class(small).parameters())
        if numbers <= LARGEST:
            torch.manual_seed(0)
            model = model_class(small)
    except sl.MissingExtra:
        raise
    except Exception as error:
        raise sl.UnsupportedModel(
            f"no tiny model comes of this {config.model_type} config: {with_kind(error)}; give a small config.json "
            "whose sizes fit together"
        ) from error
    if numbers > LARGEST:
        raise sl.UnsupportedModel(
            f"this {config.model_type} config cannot be made small: {numbers:,} weights are left; give a small "
            "config.json"
        )
    if not model.can_generate():
        raise sl.UnsupportedModel(f"{type(model).__name__} cannot generate text")
    spread(model)
    model = model.float().eval()
    model.set_attn_implementation("eager")
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model


class Check:
    """All checks of one model."""

    def __init__(self, model: Any, family: sl.Family) -> None:
        self.model, self.family = model, family
        base = model if follow(model, family.language_model) is not None else follow(model, family.base)
        if base is None or not hasattr(base, "get_image_features"):
            raise sl.UnsupportedModel(
                f"{type(base or model).__name__} has no get_image_features; base of the family is the attribute of "
                f"{type(model).__name__} that takes input_ids and pixel_values"
            )
        sl.apply(model, sl.Uniform(keep=0.5)).remove()  # missing parts are told here
        self.decoder: LayerLoop | Decoder = (LayerLoop if is_recurrent(model, family) else Decoder)(model, family)
        self.base = base
        self.pictures = Pictures(model, base, family)
        self.batch = self._running(self.pictures)

    def _running(self, pictures: Pictures) -> Prompts:
        """A batch that the stock model runs on.

        Raises:
            UnsupportedModel: it runs on none that is known here.
        """
        tried = []
        for apart in (False, True)[: pictures.frames]:
            batch = make_prompts(self.model, self.base, self.family, pictures, ROWS, apart)
            try:
                with torch.no_grad():
                    self.model(**batch.inputs)
            except Exception as error:  # a video may stand in another way in the prompts of this model
                tried.append(with_kind(error))
            else:
                return batch
        raise sl.UnsupportedModel(
            f"the stock {type(self.model).__name__} does not run on prompts with {pictures.kind}s made for it here: "
            f"{'; '.join(tried)}; look at the config, and at {pictures.kind}_token, grids, sizes, packer of the family"
        )

    def _prompts(self, rows: Any) -> Prompts:
        return make_prompts(self.model, self.base, self.family, self.pictures, rows)

    def outcomes(self) -> list[Outcome]:
        """One after the other."""
        found = [self._told("keeping every token", self._identity)]
        for what, strategy in METHODS.items():
            if not (self.family.mrope and what in RENUMBERED):
                found.append(self._told(what, lambda s=strategy: self._equals_the_oracle(s, self.batch)))
        found.append(self._told("a row of a batch is the row alone", self._rows_alone))
        found.append(self._told("merging inside the tower runs", self._merges))
        return found + (self._of_videos() if self.family.video_token is not None else [])

    def _of_videos(self) -> list[Outcome]:
        try:
            batch = self._running(Videos(self.model, self.base, self.family))
        except sl.UnsupportedModel as error:
            return [Outcome("videos", "fails", one_line(error))]
        checks = OF_VIDEOS.items()
        return [self._told(what, lambda s=strategy: self._equals_the_oracle(s, batch)) for what, strategy in checks]

    def _told(self, what: str, check: Any) -> Outcome:
        try:
            with torch.no_grad():
                wrong = check()
        except sl.UnsupportedModel as error:
            return Outcome(what, "refused", one_line(error))
        except Exception as error:  # whatever it is, the person is to read it
            return Outcome(what, "fails", with_kind(error))
        return Outcome(what, "fails", wrong) if wrong else Outcome(what, "holds")

    def _placed(self, inputs: dict) -> dict:
        """With the positions that `generate` gives, save where the model works them out of pictures."""
        if self.family.mrope:
            return inputs
        return {**inputs, "position_ids": (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)}

    def _identity(self) -> str:
        inputs = self.batch.inputs
        before = self.model(**inputs).logits
        with sl.apply(self.model, sl.Uniform(keep=1.0)):
            after = self.model(**inputs).logits
        return "" if torch.equal(before, after) else f"logits differ by {_far(before, after):.1e}"

    def _equals_the_oracle(self, strategy: sl.Strategy, batch: Prompts) -> str:
        inputs, visual, prompt = batch.inputs, batch.visual, batch.visual.shape[1]
        with sl.apply(self.model, strategy) as run:
            out = self.model.generate(
                **inputs,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
                suppress_tokens=NO_WORDS,
            )
            report = run.reports[0]
            prefill = self.model(**self._placed(inputs)).logits
        full = self._placed(batch.continued(out.sequences))
        renumber = strategy.positions == "renumber"
        length = full["input_ids"].shape[1]
        cuts = cuts_of(report, visual, len(self.decoder.layers), full.get("position_ids"), renumber, length)
        plain = self.model(**full, use_cache=False).logits
        with self.decoder.under(cuts):
            want = self.model(**full, use_cache=False).logits
        text = ~visual & inputs["attention_mask"].bool()
        if _far(plain[:, :prompt][text], want[:, :prompt][text]) < APART:
            return "dropping tokens changes nothing, so this check says nothing"
        if not (far := _far(prefill[text], want[:, :prompt][text])) < NEAR:
            return f"logits of the prompt are {far:.1e} of their size away from the oracle's"
        if not (far := _far(torch.stack(out.logits, 1), want[:, prompt - 1 : -1])) < NEAR:
            return f"logits of the answer are {far:.1e} of their size away from the oracle's"
        return ""

    def _rows_alone(self) -> str:
        strategy = sl.FastV(keep=0.5) if not self._refuses(sl.FastV(keep=0.5)) else sl.Uniform(keep=0.5)
        with sl.apply(self.model, strategy):
            together = self.model(**self._placed(self.batch.inputs)).logits
            for number, row in enumerate(ROWS):
                alone = self.model(**self._placed(self._prompts([row]).inputs)).logits[0]
                own = together[number][self.batch.inputs["attention_mask"][number].bool()]
                if not (far := _far(own, alone)) < NEAR:
                    return f"logits of row {number} are {far:.1e} of their size away from those of the row alone"
        return ""

    def _merges(self) -> str:
        with sl.apply(self.model, sl.ToMe(keep=0.5)):
            logits = self.model(**self.batch.inputs).logits
        return "" if logits.isfinite().all() else "not all logits are finite"

    def _refuses(self, strategy: sl.Strategy) -> bool:
        try:
            with sl.apply(self.model, strategy):
                self.model(**self.batch.inputs)
        except sl.UnsupportedModel:
            return True
        return False


def _far(here: torch.Tensor, there: torch.Tensor) -> float:
    """The largest difference, as a share of the largest number; nan if there is one."""
    return float((here - there).abs().max() / there.abs().max())
