"""Guests in training: loss and gradients are the mask oracle's; those that add tokens learn through them."""

import pytest
import torch
from matrix import PLACEHOLDERS
from test_guests import ADDS, CONFIGS
from test_training import ROWS
from test_training_strategies import assert_close, batch, chosen, gradients, loss_of

import seeless as sl
from oracle import MaskOracle, turn_of


@pytest.mark.parametrize("name", CONFIGS)
@chosen
def test_loss_and_gradients(own, name):
    model, untouched = own.build("sdpa", torch.float64).train(), own.build("eager", torch.float64).train()
    inputs, labels = batch(model, own)
    with sl.apply(model, CONFIGS[name]) as run:
        loss = loss_of(model(**inputs, labels=labels).logits, labels)
        loss.backward()
        strategies = run.strategies
    found = gradients(model)
    assert loss.isfinite() and all(bool(gradient.isfinite().all()) for gradient in found.values())
    assert any(gradient.abs().max() > 1e-6 for name, gradient in found.items() if "vis" in name)
    assert sum(run.report.n_after) < sum(run.report.stages[0].n_before) and len(ROWS) == len(run.report.n_after)
    if name in ADDS:
        return
    turn = turn_of(run.report, inputs["input_ids"], PLACEHOLDERS)
    with MaskOracle(untouched, strategies, [turn], inputs["attention_mask"]):
        want = loss_of(untouched(**inputs, use_cache=False).logits, labels)
        want.backward()
    assert abs(loss.item() - want.item()) < 1e-6
    assert_close(found, gradients(untouched), 1e-4)
