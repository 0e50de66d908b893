"""A training step: logits, loss and gradients against those of the untouched model with the same tokens hidden."""

import torch
from fuzz_checks import check_report, compare, expect
from fuzz_run import Run
from fuzz_talk import visual_in
from fuzz_truth import truth

NOTHING = -100


def labels_of(run: Run) -> torch.Tensor:
    """Half of the text, by chance."""
    inputs = run.talk.turns[0]
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    chosen = torch.rand(ids.shape, generator=torch.Generator().manual_seed(run.case.seed)) < 0.5
    chosen &= real & ~visual_in(ids)
    chosen[:, 0] = False
    chosen[:, 1:] &= real[:, :-1]  # the first token of a row follows nothing
    return torch.where(chosen, ids, NOTHING)


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """As the models have it, but not rounded to float32."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def train(run: Run) -> None:
    """Raises `Wrong` where logits, loss or a gradient differ. What a method merged is no function of weights here, so
    of those that do only the logits are compared."""
    inputs, labels = run.talk.turns[0], labels_of(run)
    out = run.model(**inputs, labels=labels)
    real = inputs["attention_mask"].bool()
    expect(bool(out.logits[real].isfinite().all()), "logits are not finite")
    learns = bool((labels != NOTHING).any())
    if learns:
        loss_of(out.logits, labels).backward()
    if run.case.dtype == "bfloat16":
        return
    prefills = []
    if run.reports:
        check_report(run.reports[0], run.strategies, inputs["input_ids"], real)
        prefills = [run.prefill(0, 0, real.shape[1])]
    want = truth(run.untouched, run.strategies, run.talk.whole, prefills)
    compare("training", out.logits, want, real)
    if not learns or run.states is not None:
        return
    loss = loss_of(want, labels)
    loss.backward()
    expect(abs(out.loss.item() - loss.item()) < 1e-3, f"loss {out.loss.item()} in place of {loss.item()}")
    theirs = dict(run.untouched.named_parameters())
    for name, mine in run.model.named_parameters():
        have, should = (torch.zeros_like(p) if p.grad is None else p.grad for p in (mine, theirs[name]))
        apart, size = float((have - should).abs().max()), float(should.abs().max())
        expect(apart <= 2e-5 + 5e-3 * size, f"the gradient of {name} differs by {apart:.1e} of {size:.1e}")
