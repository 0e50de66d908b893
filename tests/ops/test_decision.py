"""`Keep` and `Merge` against loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seeless.decision import Keep, Merge


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.data())
def test_keep_from_indices_in_any_order(units, visual, data):
    kept = data.draw(st.integers(0, visual))
    index = [data.draw(st.permutations(range(visual)))[:kept] for _ in range(units)]
    scores = torch.randn(units, visual)
    keep = Keep.indices(torch.tensor(index, dtype=torch.long).view(units, kept), visual, scores)
    assert keep.mask.dtype is torch.bool and keep.mask.shape == (units, visual)
    assert [row.nonzero()[:, 0].tolist() for row in keep.mask] == [sorted(unit) for unit in index]
    assert keep.scores is scores


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 8), st.integers(0, 12), st.sampled_from([1, 20, 2**22]), st.integers(0, 999))
def test_merge_is_a_weighted_sum_over_entries(units, visual, entries, at_once, seed):
    generator = torch.Generator().manual_seed(seed)
    old = torch.randn(units, visual, 3, generator=generator, dtype=torch.float64)
    source, slot = (torch.randint(visual, (units, entries), generator=generator) for _ in range(2))
    weight = torch.randn(units, entries, generator=generator, dtype=torch.float64)
    mask = torch.zeros(units, visual, dtype=torch.bool).scatter(1, slot, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seeless.decision.VALUES_AT_ONCE", at_once)
        got = Merge(mask, source, slot, weight).values(old)
    for unit in range(units):
        for token in range(visual):
            given = [e for e in range(entries) if slot[unit, e] == token]
            want = sum(weight[unit, e] * old[unit, source[unit, e]] for e in given) if given else old[unit, token]
            assert torch.allclose(got[unit, token], want, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_merge_keeps_the_dtype(dtype):
    old = torch.ones(1, 4, 2, dtype=dtype)
    merge = Merge(torch.tensor([[True, False, False, True]]), torch.tensor([[0, 1]]), torch.tensor([[0, 0]]), 0.5)
    merge = Merge(merge.mask, merge.source, merge.slot, torch.tensor([[0.5, 0.5]]))
    values = merge.values(old)
    assert values.dtype is dtype and (values == 1).all()


def test_merge_passes_gradients_to_every_source():
    old = torch.randn(1, 3, 2, requires_grad=True)
    mask = torch.tensor([[True, False, True]])
    merge = Merge(mask, torch.tensor([[0, 1]]), torch.tensor([[0, 0]]), torch.tensor([[0.25, 0.75]]))
    merge.values(old)[mask].sum().backward()
    assert old.grad.tolist() == [[[0.25, 0.25], [0.75, 0.75], [1.0, 1.0]]]
