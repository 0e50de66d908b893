"""Our own calls raise no warning of any kind, DeprecationWarning included."""

import logging
import warnings

import pytest

import seeless as sl
from tiny_models import RAGGED, VARIANTS, make_inputs

COMPOSED = {
    "decoder": [sl.FastV(keep=0.5), sl.PriorTR(keep=3, layer=4)],
    "pyramid": [sl.PyramidDrop()],
    "tower": [sl.FasterVLM(keep=10), sl.VisPruner(keep=5)],
    "baselines": [sl.Pool(keep=9), sl.Random(keep=0.4), sl.Uniform(keep=2, layer=3)],
}


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("strategies", COMPOSED.values(), ids=COMPOSED)
def test_apply_generate_train_and_report(variant, strategies):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = variant.build("sdpa")
        inputs = make_inputs(model, variant, RAGGED)
        with sl.apply(model, strategies) as run:
            model.generate(**inputs, max_new_tokens=3)
            labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
            model(**inputs, labels=labels).loss.backward()
            model(**inputs, use_cache=False)
        str(run.report), run.report.to_dict()
        assert [sl.from_dict(strategy.to_dict()) for strategy in strategies] == strategies


def test_what_transformers_deprecates_is_an_error():
    """In its log, of which it says most things only once, and in warnings that blame whoever called a forward."""
    for _ in range(2):
        with pytest.raises(DeprecationWarning, match="`old` is deprecated"):
            logging.getLogger("transformers.any.module").warning("`old` is deprecated. Use `new` instead.")
    message = "`old` is deprecated and will be removed in version 9.9 for `Any.forward`."
    with pytest.raises(FutureWarning, match="`old`"):
        warnings.warn_explicit(message, FutureWarning, "module.py", 1, module="torch.nn.modules.module")
