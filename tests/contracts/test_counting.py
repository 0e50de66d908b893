"""The counter itself: what waits, what uploads, what does not, and where."""

import numpy as np
import pytest
import torch
from counting import Calls, Counting

import seeless as sl
from tinies import TINIES, make_inputs

X = torch.arange(6.0)
MASK = X > 2
COUNTS = torch.tensor([1, 0, 2, 0, 1, 1])
WAITING = {
    "item": lambda: X[0].item(),
    "bool": lambda: bool(MASK.any()),
    "if": lambda: 1 if MASK.any() else 0,
    "int": lambda: int(X[1]),
    "float": lambda: float(X[1]),
    "index": lambda: range(9)[COUNTS[2]],
    "python's max": lambda: max(X[0], X[1]),
    "tolist": lambda: X.tolist(),
    "cpu": lambda: X.cpu(),
    "to the cpu": lambda: X.to("cpu", torch.float64),
    "numpy": lambda: X.numpy(),
    "numpy.asarray": lambda: np.asarray(X),
    "in": lambda: 3 in X,
    "nonzero": lambda: MASK.nonzero(),
    "where with one argument": lambda: torch.where(MASK),
    "read by a mask": lambda: X[MASK],
    "read by a mask and more": lambda: X.view(2, 3)[:, MASK[:3]],
    "written by a mask": lambda: X.clone().__setitem__(MASK, X[3:]),
    "written by a mask from the device": lambda: X.clone().__setitem__(MASK, torch.zeros(())),
    "index_put": lambda: X.index_put((MASK,), X[3:]),
    "masked_select": lambda: X.masked_select(MASK),
    "unique": lambda: X.unique(),
    "unique_consecutive": lambda: X.unique_consecutive(),
    "unique rows": lambda: X.view(2, 3).unique(dim=0),
    "repeat_interleave": lambda: X.repeat_interleave(COUNTS),
    "equal": lambda: torch.equal(X, X),
    "allclose": lambda: torch.allclose(X, X),
    "bincount": lambda: COUNTS.bincount(),
}
GOING_ON = {
    "arithmetic": lambda: (X * 2 + 1).softmax(0),
    "shape": lambda: X.view(2, 3).shape[1] + len(X),
    "read by numbers": lambda: X[COUNTS],
    "a slice": lambda: X[2:4],
    "filled by a mask": lambda: X.clone().__setitem__(MASK, 0.0),
    "masked_fill": lambda: X.masked_fill(MASK, 0),
    "where with three": lambda: torch.where(MASK, X, 0),
    "gather": lambda: X.gather(0, COUNTS),
    "topk": lambda: X.topk(3),
    "sort": lambda: X.sort(stable=True),
    "cumsum": lambda: MASK.cumsum(0),
    "repeat_interleave of known size": lambda: X.repeat_interleave(COUNTS, output_size=5),
    "repeat_interleave by a number": lambda: X.repeat_interleave(2),
    "an element written": lambda: X.clone().__setitem__(0, 3.0),
    "to a type": lambda: X.to(torch.float64),
    "arange and full": lambda: torch.arange(4) + torch.full((4,), 2),
    "numpy alone": lambda: np.flatnonzero(np.arange(6) > 2).tolist(),
}
UPLOADING = {
    "tensor": lambda: torch.tensor([1, 2]),
    "as_tensor": lambda: torch.as_tensor([1, 2]),
    "asarray": lambda: torch.asarray([1, 2]),
    "from_numpy": lambda: torch.from_numpy(np.ones(2)),
    "new_tensor": lambda: X.new_tensor([1]),
    "LongTensor": lambda: torch.LongTensor([1, 2]),
    "read by a list": lambda: X[[0, 2]],
    "read by an array": lambda: X[np.array([0, 2])],
}


@pytest.mark.parametrize("name", WAITING)
@pytest.mark.parametrize("grad", [False, True])
def test_a_wait(name, grad):
    with torch.set_grad_enabled(grad), Counting() as count:
        WAITING[name]()
    assert (count.waits, count.uploads) == (1, 0)


@pytest.mark.parametrize("name", GOING_ON)
def test_no_wait(name):
    with Counting() as count:
        GOING_ON[name]()
    assert (count.waits, count.uploads) == (0, 0)


@pytest.mark.parametrize("name", UPLOADING)
def test_an_upload(name):
    with Counting() as count:
        UPLOADING[name]()
    assert (count.waits, count.uploads) == (0, 1)


def test_operations():
    with Counting() as count:
        ((X * 2 + 1).view(2, 3).T[:, :1].unsqueeze(0).expand(4, -1, -1).detach() + X[0]).unbind()
    assert count.operations == 3
    with Counting() as count:
        np.cumsum(np.arange(3))
    assert count.operations == 0


def test_what_was_fetched_once_is_fetched():
    """One wait for the first copy; whatever is made of it is the host's, until it is put back."""
    with Counting() as count:
        own = X.cpu()
        assert own.untyped_storage().data_ptr() != X.untyped_storage().data_ptr()
        assert own.tolist() == X.cpu().numpy().tolist()
        assert count.waits == 2
        later = (own[own > 2] * 2).nonzero()
        assert later.sum().item() == 3 and bool((own == 1).any()) and own.numpy().sum() == 15
        assert (count.waits, count.uploads) == (2, 0)
        back = own.to(X.device)
        assert (count.waits, count.uploads) == (2, 1)
        assert back.sum().item() == 15 and (back + own).max().item() == 10
        assert count.waits == 4


def test_a_host_address_used_again_is_a_device_tensor():
    with Counting() as count:
        for _ in range(20):
            X.cpu()
        waits = count.waits
        for _ in range(20):
            (X + 1).sum().item()
    assert count.waits == waits + 20


@torch.no_grad()
def test_a_forward_is_the_same_and_its_lines_are_ours(tiny):
    own = TINIES[0]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[5, "image:0", 9]])
    with Counting() as untouched:
        model(**inputs)
    assert untouched.where == untouched.where_uploads == untouched.where_operations == {}
    with sl.apply(model, sl.FastV(keep=5)):
        want = model(**inputs).logits
        with Counting() as count:
            assert torch.equal(model(**inputs).logits, want)
    assert count.operations > untouched.operations
    assert sum(count.where_operations.values()) >= count.operations - untouched.operations
    assert all(
        line.startswith(("core/", "strategies/", "ops/", "strategy.py", "decision.py", "faults.py"))
        for line in count.where_operations
    )
    with Counting() as again:
        model(**inputs)
    numbers = [(c.operations, c.waits, c.uploads) for c in (untouched, again)]
    assert numbers[0] == numbers[1]


@torch.no_grad()
def test_hooks_and_calls(tiny):
    own = TINIES[0]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[5, "image:0", 9]])
    with Calls() as untouched:
        model(**inputs)
    assert untouched.calls == 0
    with sl.apply(model, sl.FastV(keep=5)), Calls() as count:
        model(**inputs)
    assert count.hooks == untouched.hooks  # seams are no hooks
    assert count.calls == sum(count.which.values()) > 0 and count.which["strategies/fastv.py:score"] == 1
    handle = model.lm_head.register_forward_hook(lambda *_: None)
    with Calls() as more:
        model(**inputs)
    handle.remove()
    assert more.hooks == untouched.hooks + 1
