"""`LazyAttention` against the tensor it stands for."""

import copy
import operator
import pickle
import re
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from seeless.vtr import LazyAttention, wholemaps
from seeless.vtr import attention as module
from seeless.vtr.deferred import Deferred
from seeless.vtr.wholemaps import WholeMaps

HEADS, SEQ = 3, 7
pytestmark = pytest.mark.filterwarnings("ignore:.*needs all rows of the attention map")


def pair(dtype=torch.float32, heads=HEADS, seq=SEQ, seed=0):
    """The lazy map, the whole map `[1, heads, seq, seq]`, and a list of how many rows every read was asked for."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.rand(heads, seq, seq, generator=generator, dtype=torch.float64).softmax(-1).to(dtype)
    asked = []

    def read(rows):
        asked.append(rows.tolist())
        return whole[:, rows].float() if dtype != torch.float64 else whole[:, rows]

    maps = WholeMaps("mine")
    return LazyAttention(read, heads, seq, dtype, torch.device("cpu"), maps), whole[None], asked


def same(lazy, dense, exact=True):
    got = lazy.dense() if isinstance(lazy, LazyAttention) else lazy
    assert got.shape == dense.shape == lazy.shape and got.dtype == dense.dtype == lazy.dtype
    assert lazy.dim() == dense.dim() == lazy.ndim and lazy.numel() == dense.numel()
    if exact:
        assert torch.equal(got, dense)
    else:
        tolerance = 4 * torch.finfo(dense.dtype).eps
        assert torch.allclose(got.double(), dense.double(), rtol=tolerance, atol=tolerance)


@st.composite
def one_index(draw, size, lists=True):
    """An index for one dimension."""
    kinds = ["int", "slice", "step", "all", "number"] + (["list", "tensor", "mask", "range", "none left"] * lists)
    kind = draw(st.sampled_from(kinds))
    place = st.integers(-size, size - 1)
    if kind == "int":
        return draw(place)
    if kind == "number":
        return torch.tensor(draw(place))
    if kind == "all":
        return slice(None)
    if kind in ("slice", "step"):
        ends = st.none() | st.integers(-size - 2, size + 2)
        return slice(draw(ends), draw(ends), draw(st.integers(1, 4)) if kind == "step" else None)
    if kind == "none left":
        return []
    if kind == "range":
        return range(draw(st.integers(0, size - 1)), size)
    if kind == "mask":
        return torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    places = draw(st.lists(place, min_size=1, max_size=5))
    return places if kind == "list" else torch.tensor(places)


@st.composite
def index_of(draw, shape):
    """A key with at most one list, maybe an ellipsis, maybe too short."""
    named = draw(st.integers(0, len(shape)))
    listed = draw(st.integers(0, len(shape)))
    front = draw(st.integers(0, named))
    dims = [*range(front), *range(len(shape) - (named - front), len(shape))]
    keys = [draw(one_index(shape[d], lists=d == listed)) for d in dims]
    if front < named or draw(st.booleans()):
        keys.insert(front, Ellipsis)
    return keys[0] if len(keys) == 1 and draw(st.booleans()) else tuple(keys)


def torch_key(key):
    """torch 2.6 takes no range inside a tuple."""
    if isinstance(key, tuple):
        return tuple(map(torch_key, key))
    return list(key) if isinstance(key, range) else key


def indexed(lazy, dense, key):
    return lazy[torch_key(key)], dense[torch_key(key)]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
def test_indexing_and_chains_of_it(data, dtype):
    """One to three indices in a row, and what they name of the rows is what is read."""
    lazy, dense, asked = pair(dtype)
    for _ in range(data.draw(st.integers(1, 3))):
        if not isinstance(lazy, LazyAttention):
            break
        key = data.draw(index_of(dense.shape))
        lazy, dense = indexed(lazy, dense, key)
        if 0 in dense.shape:
            break
    same(lazy, dense)
    assert all(len(rows) <= module.ROWS_AT_ONCE for rows in asked)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_what_is_no_whole_map_is_a_tensor(data):
    """An index on the rows gives a tensor, computed from those rows alone; none on the rows reads nothing."""
    lazy, _, asked = pair()
    rows = data.draw(one_index(SEQ))
    others = [data.draw(one_index(n, lists=False)) for n in (1, HEADS, SEQ)]
    if isinstance(others[0], slice) and len(range(1)[others[0]]) == 0:
        others[0] = slice(None)
    key = (*others[:2], rows, others[2])
    got = lazy[key]
    named = torch.arange(SEQ)[torch_key(rows)].reshape(-1).tolist()
    if isinstance(rows, slice) and named == list(range(SEQ)):
        assert isinstance(got, LazyAttention) and asked == []
    else:
        assert type(got) is torch.Tensor and asked == ([named] if named else [])


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_several_lists_are_read_together(data):
    lazy, dense, asked = pair()
    lists = data.draw(st.sets(st.integers(0, 3), min_size=2).filter(lambda dims: 2 in dims))
    count = data.draw(st.integers(1, 4))
    shape = data.draw(st.sampled_from([(count,), (1, count), (count, 1)]))
    keys = []
    for dim, size in enumerate(dense.shape):
        if dim in lists:
            places = data.draw(st.lists(st.integers(-size, size - 1), min_size=count, max_size=count))
            own = torch.tensor(places)
            keys.append(own.view(shape) if data.draw(st.booleans()) and size > 1 else own)
        else:
            keys.append(data.draw(one_index(size, lists=False)))
    try:
        want = dense[tuple(keys)]
    except (IndexError, RuntimeError):  # shapes that do not go together
        with pytest.raises((IndexError, RuntimeError)):
            lazy[tuple(keys)]
        return
    same(lazy[tuple(keys)], want)
    assert {row for rows in asked for row in rows} == {row % SEQ for row in keys[2].flatten().tolist()}


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_new_dimensions(data):
    lazy, dense, _ = pair()
    keys = [data.draw(one_index(n, lists=dim == 2)) for dim, n in enumerate(dense.shape)]
    for _ in range(data.draw(st.integers(1, 2))):
        keys.insert(data.draw(st.integers(0, len(keys))), None)
    same(lazy[torch_key(tuple(keys))], dense[torch_key(tuple(keys))])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_reductions_over_any_dimensions(data, dtype):
    """After some indexing; twice in a row while it stays lazy; then indexed again."""
    lazy, dense, _ = pair(dtype, seq=9)
    before = data.draw(st.sampled_from([(), (0,), (Ellipsis, slice(2, 8)), (0, 1), (slice(None), [0, 2])]))
    lazy, dense = lazy[before], dense[before]
    for _ in range(2):
        if not isinstance(lazy, LazyAttention):
            break
        how = data.draw(st.sampled_from(["mean", "sum", "amax", "max"]))
        keepdim = data.draw(st.booleans())
        if how == "max":
            dim = data.draw(st.integers(-dense.ndim, dense.ndim - 1))
            lazy, dense = lazy.max(dim, keepdim).values, dense.max(dim, keepdim).values
            continue
        dims = data.draw(st.none() | st.lists(st.integers(0, dense.ndim - 1), unique=True))
        if dims is None and how != "amax":
            lazy, dense = getattr(lazy, how)(), getattr(dense, how)()
            continue
        dims = data.draw(st.sampled_from([tuple(dims or ()), list(dims or ())] + ([dims[0]] if dims else [])))
        if how != "amax" and dims in ((), []):
            dims = 0
        negative = [d - dense.ndim for d in dims] if isinstance(dims, list) else dims
        lazy, dense = getattr(lazy, how)(dim=negative, keepdim=keepdim), getattr(dense, how)(dim=dims, keepdim=keepdim)
    same(lazy, dense, exact=False)
    if isinstance(lazy, LazyAttention):
        same(*indexed(lazy, dense, data.draw(index_of(dense.shape))), exact=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_guests_write(dtype):
    lazy, dense, asked = pair(dtype)
    s, e = 2, 5
    same(lazy[:, :, -1, s:e].mean(dim=1).squeeze(0), dense[:, :, -1, s:e].mean(dim=1).squeeze(0))
    assert asked == [[SEQ - 1]]
    same(lazy[:, :, e:, s:e].sum(dim=2), dense[:, :, e:, s:e].sum(dim=2))
    same(lazy[0].mean(0)[e, s:e], dense[0].mean(0)[e, s:e])
    same(lazy.mean(dim=1)[0, e:-1].float().mean(0), dense.mean(dim=1)[0, e:-1].float().mean(0))
    same(lazy.mean(1).float()[:, 0], dense.mean(1).float()[:, 0])  # rounded before it is widened
    same(torch.mean(lazy, dim=1)[:, 3], torch.mean(dense, dim=1)[:, 3])
    same(lazy.squeeze(0)[:, [0, 3]][:, :, s:e], dense.squeeze(0)[:, [0, 3]][:, :, s:e])
    same(lazy[..., s:e].mean(dim=(1, 2)), dense[..., s:e].mean(dim=(1, 2)), exact=False)
    same(lazy[:, :, :, s:e].amax(dim=2).amax(1), dense[:, :, :, s:e].amax(dim=2).amax(1))
    same(lazy.select(2, -1).narrow(-1, s, e - s), dense.select(2, -1).narrow(-1, s, e - s))
    same(lazy.narrow(2, -3, 2), dense.narrow(2, -3, 2))
    same(lazy.index_select(2, torch.tensor([4, 0, 4])), dense.index_select(2, torch.tensor([4, 0, 4])))
    same(torch.squeeze(lazy, 0)[0][3], dense[0][0][3])
    same(lazy.squeeze()[:, 1], dense.squeeze()[:, 1])
    same(lazy.max(1).indices.float()[0, 2], dense.max(1).indices.float()[0, 2])
    same(lazy.min(dim=1)[0][:, 3:5], dense.min(dim=1)[0][:, 3:5])
    same(lazy.mean(1, keepdim=True).squeeze((0, 1))[2], dense.mean(1, keepdim=True).squeeze((0, 1))[2])
    same(lazy.sum(dim=-1, dtype=torch.float64), dense.sum(dim=-1, dtype=torch.float64), exact=False)
    same(lazy.detach().clone().contiguous().cpu()[:, :, 1], dense[:, :, 1])
    for name in ("float", "double", "half", "bfloat16"):
        same(getattr(lazy, name)()[:, :, 2], getattr(dense, name)()[:, :, 2])
    assert [tuple(head.shape) for head in lazy[0]] == [(SEQ, SEQ)] * HEADS
    for got, row in zip(lazy[0, 1], dense[0, 1], strict=True):
        same(got, row)
    assert (lazy.size(), lazy.size(1), len(lazy), lazy.requires_grad) == (dense.size(), HEADS, 1, False)
    assert lazy.is_floating_point() and repr(lazy).startswith("LazyAttention(shape=(1, 3, 7, 7)")
    assert (lazy == None) is False and (lazy != None) is True and id(lazy) in {id(lazy): 1}  # noqa: E711


def test_many_named_rows_stay_lazy_until_they_are_used(monkeypatch):
    """What a guest may do with rows it named does not depend on how many there are."""
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    lazy, dense, asked = pair()
    part, want = lazy[:, :, 3:, 1:4], dense[:, :, 3:, 1:4]
    assert isinstance(part, LazyAttention) and asked == []
    same(part.mean(2), want.mean(2), exact=False)
    assert asked == [[3, 4], [5, 6]]
    for use in (
        lambda x: x * 2,
        lambda x: 1 - x,
        lambda x: torch.ones(1) * x,
        lambda x: -x,
        lambda x: x > 0.1,
        lambda x: x == x,
        lambda x: torch.softmax(x, -1),
        lambda x: torch.cat([x, x], dim=2),
        lambda x: x.transpose(1, 2).reshape(-1),
        lambda x: x[:, None],
        lambda x: x.T if x.ndim == 2 else x.mT,
        lambda x: torch.einsum("bhqk,k->bhq", x, torch.ones(3)),
        lambda x: x.std(2),
        lambda x: torch.from_numpy(np.asarray(x)),
        lambda x: x.max(1).values[:, 0],
        lambda x: x @ torch.ones(3, 2),
    ):
        assert torch.equal(use(part), use(want))
    copied = part.clone()
    copied += 1
    same(copied, want + 1)


WHOLE = {
    "+": lambda x: x + 1,
    "r+": lambda x: 1 + x,
    "tensor*": lambda x: torch.ones(1) * x,
    "/": lambda x: x / x,
    "//": lambda x: x // 0.3,
    "%": lambda x: x % 2,
    "**": lambda x: x**2,
    "2**": lambda x: 2**x,
    "@": lambda x: x @ x,
    "-": operator.neg,
    "abs": abs,
    ">": lambda x: x > 0.1,
    "==": lambda x: x == x,
    "&": lambda x: (x > 0.1) & (x < 0.2),
    "in": lambda x: torch.tensor(0.5 in x),
    "numpy": lambda x: torch.from_numpy(np.asarray(x)),
    "tolist": lambda x: torch.tensor(x.tolist()),
    "softmax": lambda x: torch.softmax(x, -1),
    "method": lambda x: x.softmax(-1),
    "functional": lambda x: torch.nn.functional.softmax(x, dim=-1),
    "keyword": lambda x: torch.softmax(input=x, dim=-1),
    "transpose": lambda x: x.transpose(1, 2),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "T": lambda x: x.mT,
    "view": lambda x: x.view(-1),
    "reshape": lambda x: x.reshape(HEADS, -1),
    "flatten": lambda x: x.flatten(1),
    "topk": lambda x: x.topk(2).values,
    "argmax": lambda x: x.argmax(-1),
    "sort": lambda x: torch.sort(x).values,
    "std": lambda x: x.std(2),
    "cumsum": lambda x: x.cumsum(-1),
    "diagonal": lambda x: x.diagonal(dim1=-2, dim2=-1),
    "masked_fill": lambda x: x.masked_fill(torch.eye(SEQ).bool(), 0),
    "where": lambda x: torch.where(x > 0.1, x, 0.0),
    "gather": lambda x: x.gather(2, torch.zeros(1, HEADS, 2, SEQ).long()),
    "cat": lambda x: torch.cat([x, x]),
    "stack": lambda x: torch.stack([x, x]),
    "einsum": lambda x: torch.einsum("bhqk->bk", x),
    "matmul": lambda x: torch.matmul(x, torch.ones(SEQ, 2)),
    "of heads' mean": lambda x: x.mean(1) * 2,
    "of columns": lambda x: x[..., 1:3] * 2,
    "heads and columns": lambda x: x[0, [0, 1], :, [2, 3]],
    "mask of the map": lambda x: x[torch.eye(SEQ).bool().expand(1, HEADS, SEQ, SEQ)],
    "maximum of two": lambda x: x.max(torch.full((1,), 0.1)),
    "maxima over columns": lambda x: x.max(dim=-1)[0],
    "set": lambda x: (operator.setitem(x, (0, 1), 1.0), x + 0)[1],
    "set columns": lambda x: (operator.setitem(x, (..., [0, 2]), 0.5), x + 0)[1],
    "in place": lambda x: x.mul_(2) + 0,
    "augmented": lambda x: operator.imul(x, 2) + 0,
    "zero_": lambda x: x.zero_() + 0,
    "torch in place": lambda x: torch.relu_(x) + 0,
    "out": lambda x: (torch.add(torch.ones(1, HEADS, SEQ, SEQ), 1, out=x), x + 0)[1],
    "copy in place": lambda x: x.clone().mul_(2) + 0,
    "mean in place": lambda x: x.mean(1).mul_(2) + 0,
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
}
MODES = {"plain": nullcontext, "no_grad": torch.no_grad, "inference": torch.inference_mode}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WHOLE)
def test_everything_else_works_on_the_whole_map_and_says_so_once(name, mode):
    with MODES[mode](), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        lazy, dense, _ = pair()
        dense = dense.clone()
        got = WHOLE[name](lazy)
        WHOLE[name](lazy[:])
        want = WHOLE[name](dense)
    assert isinstance(lazy, torch.Tensor)
    assert torch.equal(got, want) and got.dtype == want.dtype and type(got) is torch.Tensor
    (notice,) = said
    assert re.search(r"mine: [\w ]+ needs all rows .* \d x .*numbers \(\d+ bytes\)", str(notice.message))


def test_named_rows_are_not_worth_a_notice():
    lazy, dense, _ = pair()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(lazy[:, :, 2:].softmax(-1), dense[:, :, 2:].softmax(-1))
        assert torch.equal(lazy.mean(1)[:, [0, 5]] * 2, dense.mean(1)[:, [0, 5]] * 2)
        assert torch.equal(lazy.dense().permute(3, 2, 1, 0), dense.permute(3, 2, 1, 0))  # asked for by name


def test_more_than_fits_is_refused_by_name_and_size(monkeypatch):
    monkeypatch.setattr(wholemaps, "DENSE_AT_MOST", HEADS * SEQ * SEQ * 4 - 1)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    lazy, dense, asked = pair()
    with pytest.raises(
        sl.InputError, match=r"^mine: softmax needs all .*1 x 3 x 7 x 7 numbers \(588 bytes\).*587 bytes"
    ):
        lazy.softmax(-1)
    with pytest.raises(sl.InputError, match=r"attention\.dense\(\)"):
        lazy.mul_(2)
    assert asked == []
    monkeypatch.setattr(wholemaps, "DENSE_AT_MOST", 300)
    with pytest.raises(sl.InputError, match="needs these rows"):
        lazy[:, :, 2:] * 2
    same(lazy[:, :, 2:].mean(2), dense[:, :, 2:].mean(2), exact=False)  # a few rows at a time
    assert torch.equal(lazy.dense(), dense)


def test_what_a_read_would_not_see_cannot_be_written():
    """torch would write through what was indexed before; here that is a copy."""
    for read in (lambda x: x[:, :, -1], lambda x: x[0], lambda x: x[..., 1:3], lambda x: x.detach()):
        lazy, _, _ = pair()
        part = read(lazy)
        with pytest.raises(sl.InputError, match=r"attention\.clone\(\)"):
            lazy.mul_(2)
        if isinstance(part, LazyAttention):
            with pytest.raises(sl.InputError, match=r"attention\.clone\(\)"):
                part[:] = 0
    lazy, dense, _ = pair()
    means, copy_of = lazy.mean(1), lazy.clone()  # torch shares no numbers with these
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy.mul_(2)
        means.add_(1)
    same(copy_of[:, :, 3], dense[:, :, 3])
    same(lazy[:, :, 3], 2 * dense[:, :, 3])
    same(means[:, 3], dense.mean(1)[:, 3] + 1)


def test_reading_under_autocast_is_reading_outside():
    """What an operation on the map is not part of the model's forward that computes it."""
    weight = torch.randn(SEQ, SEQ)

    def read(rows):
        return (torch.ones(HEADS, SEQ, SEQ) @ weight)[:, rows]

    with torch.autocast("cpu", torch.bfloat16):
        want = read(torch.arange(SEQ))
        lazy = LazyAttention(read, HEADS, SEQ, torch.bfloat16, torch.device("cpu"))
        assert want.dtype == torch.bfloat16 and torch.equal(lazy[0, :, 2], want[:, 2])
        assert torch.equal(lazy.dense()[0], want)


@pytest.mark.parametrize("make", [torch.tensor, torch.as_tensor, torch.Tensor.detach])
def test_copies_that_need_no_numbers(make):
    lazy, dense, asked = pair()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.tensor of a tensor
        made = make(lazy)
    assert isinstance(made, LazyAttention) and asked == []
    same(made[:, :, 2], dense[:, :, 2])


def test_a_deferred_tensor_is_made_once_when_it_is_used():
    asked = []

    def make():
        asked.append(1)
        return torch.arange(4.0, dtype=torch.float64)

    late = Deferred(make, (4,), torch.float32, torch.device("cpu"))
    assert isinstance(late, torch.Tensor) and late.shape == (4,) and len(late) == 4 and "Deferred" in repr(late)
    assert late.dtype == torch.float32 and asked == []
    assert torch.equal(late[:2], torch.tensor([0.0, 1.0])) and torch.equal(torch.ones(4) * late, torch.arange(4.0))
    late += 1
    assert late.tolist() == [1, 2, 3, 4] and asked == [1]


def test_errors_are_those_of_a_tensor():
    lazy, dense, _ = pair()
    for key in (
        (0,) * 5,
        SEQ,
        (0, HEADS),
        (0, 0, -SEQ - 1),
        (0, 0, [SEQ]),
        (0, 0, torch.tensor([0.5])),
        (0, 0, [True]),
    ):
        with pytest.raises(IndexError):
            dense[key]
        with pytest.raises(IndexError):
            lazy[key]
    with pytest.raises(ValueError, match="greater than zero"):
        lazy[:, :, ::-1]
    for call in (lambda x: x.mean(7), lambda x: x.select(4, 0), lambda x: x.squeeze(4), lambda x: x.size(5)):
        with pytest.raises(IndexError):
            call(dense)
        with pytest.raises(IndexError):
            call(lazy)
    with pytest.raises((RuntimeError, IndexError)):
        lazy.narrow(2, 5, 5)
    with pytest.raises(RuntimeError, match="duplicate"):
        lazy.mean((1, 1))
    with pytest.raises(AttributeError, match="no attribute 'softmaxx'"):
        _ = lazy.softmaxx


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_whole_map_is_never_held(data):
    """Every read is of a few rows, however the map is reduced, and the result alone is as large as it is."""
    seq = 3 * module.ROWS_AT_ONCE + 5
    lazy, dense, asked = pair(heads=2, seq=seq)
    how = data.draw(st.sampled_from(["mean", "sum", "amax"]))
    dims = data.draw(st.lists(st.integers(0, 3), unique=True, min_size=1))
    columns = data.draw(st.sampled_from([slice(None), slice(3, 20)]))
    got = getattr(lazy[..., columns], how)(dim=tuple(dims))
    if not isinstance(got, LazyAttention):
        assert 2 in dims or 3 in dims
        same(got, getattr(dense[..., columns], how)(dim=tuple(dims)), exact=False)
        assert sum(map(len, asked)) == seq and max(map(len, asked)) <= module.ROWS_AT_ONCE
    else:
        assert not {2, 3} & set(dims) and asked == []
        got[..., 5, 1:3] if got.ndim > 1 else got[5]
        assert asked == [[5]]
