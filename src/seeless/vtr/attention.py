"""An attention map that looks whole and computes only what is read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from seeless.errors import InputError
from seeless.vtr.indexing import checked_key, needs_all, plain_key

ROWS_AT_ONCE = 64
NAMES = ("batch", "heads", "rows", "columns")
Read = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class LazyAttention:
    """One layer's attention after the softmax, `[1, heads, seq, seq]`, of which only what is asked for is computed.

    Indexing works as on a tensor, and gives a tensor where it names at most `ROWS_AT_ONCE` rows:
    `attention[:, :, -1, s:e]`, `attention[0][:, e:-1, s:e]`, `attention[:, :, rows]`. More rows stay lazy until they
    are used in any way. So do all rows: `attention[0]`, `attention.mean(dim=1)`, `attention[..., s:e]`; of them only
    means, sums and maxima can be had, which run through the map a few rows at a time. Anything else needs the whole
    map: `attention.dense()`, `heads * seq * seq` numbers at once.

    Args:
        read: attention of some rows, `[rows]` (in 0 ... `rows` - 1) -> `[heads, rows, columns]`.
        heads, rows, columns: how many; columns are as many as rows unless told.
        dtype, device: of the result.
        kept: the dimensions that are left, in order.
        whole: whether all rows are there, and none was named.
    """

    read: Read
    heads: int
    rows: int
    dtype: torch.dtype
    device: torch.device
    columns: int = -1
    kept: tuple[str, ...] = NAMES
    whole: bool = True

    def __post_init__(self) -> None:
        if self.columns < 0:
            object.__setattr__(self, "columns", self.rows)

    # What it looks like.

    def _size(self, name: str) -> int:
        return 1 if name == "batch" else getattr(self, name)

    @property
    def shape(self) -> torch.Size:
        """As a tensor's."""
        return torch.Size(self._size(name) for name in self.kept)

    def size(self, dim: int | None = None) -> Any:
        """As a tensor's."""
        return self.shape if dim is None else self.shape[dim]

    @property
    def ndim(self) -> int:
        """As a tensor's."""
        return len(self.kept)

    def dim(self) -> int:
        """As a tensor's."""
        return len(self.kept)

    def numel(self) -> int:
        """As a tensor's."""
        return self.shape.numel()

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"LazyAttention(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device})"

    # Computing.

    def dense(self) -> torch.Tensor:
        """All that is left as a tensor; of the whole map that is `heads * seq * seq` numbers."""
        return self._reduced((), False, "sum")

    def _blocks(self) -> Iterator[torch.Tensor]:
        """`[heads, some rows, columns]`, a few rows at a time."""
        rows = torch.arange(self.rows)
        for some in rows.split(ROWS_AT_ONCE) if len(rows) else (rows,):
            yield self.read(some).to(self.device, self.dtype)

    def _reduced(self, names: tuple[str, ...], keepdim: bool, how: str) -> torch.Tensor:
        """What is left, reduced over some dimensions, without ever holding more than the result and a few rows."""
        inner = tuple(i for i, name in enumerate(("heads", "rows", "columns")) if name in names and name != "rows")
        parts: list[torch.Tensor] = []
        total: Any = None
        for block in self._blocks():
            if "rows" not in names:
                parts.append(getattr(block, how)(dim=inner, keepdim=True) if inner else block)
            elif how == "amax":
                part = block.amax(dim=(*inner, 1), keepdim=True)
                total = part if total is None else torch.maximum(total, part)
            else:  # in double, which keeps what a sum over many rows would lose
                part = block.double()
                part = getattr(part, how)(dim=inner, keepdim=True) if inner else part
                part = part.sum(1, keepdim=True)
                total = part if total is None else total + part
        if "rows" in names:
            result = (total / self.rows if how == "mean" else total).to(self.dtype)
        else:
            result = torch.cat(parts, 1)
        gone = set(NAMES) - set(self.kept) | (set() if keepdim else set(names))
        return result[None].squeeze(tuple(i for i, name in enumerate(NAMES) if name in gone))

    def _over(self, how: str, dim: Any, keepdim: bool, dtype: torch.dtype | None = None) -> Any:
        if dtype is not None:
            return self.to(dtype)._over(how, dim, keepdim)
        listed = [dim] if isinstance(dim, int) else list(dim) if isinstance(dim, list | tuple) else None
        if listed is None and dim is not None:
            raise needs_all(f"a reduction with {type(dim).__name__}")
        names = tuple(self.kept[d] for d in listed) if listed else self.kept
        if len(set(names)) < len(names):
            raise InputError(f"dim={dim} names a dimension twice")
        if "rows" in names or "columns" in names:
            return self._reduced(names, keepdim, how)
        result = self if keepdim else replace(self, kept=tuple(name for name in self.kept if name not in names))
        if "heads" not in names:
            return result
        return replace(result, heads=1, read=lambda rows: getattr(self._some(rows), how)(dim=0, keepdim=True))

    def _some(self, rows: torch.Tensor) -> torch.Tensor:
        return self.read(rows).to(self.device, self.dtype)

    def mean(self, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
        """As a tensor's; over the heads alone it stays lazy."""
        return self._over("mean", dim, keepdim, dtype)

    def sum(self, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
        """As a tensor's; over the heads alone it stays lazy."""
        return self._over("sum", dim, keepdim, dtype)

    def amax(self, dim: Any = (), keepdim: bool = False) -> Any:
        """As a tensor's; over the heads alone it stays lazy."""
        return self._over("amax", dim, keepdim)

    def max(self, dim: Any = None, keepdim: bool = False) -> Any:
        """As a tensor's, but of `max(dim=...)` only the values are known."""
        values = self._over("amax", dim, keepdim)
        return values if dim is None else Maximum(values)

    # Reading parts.

    def __getitem__(self, key: Any) -> Any:
        keys = self._spread(key)
        lists = [k for k in keys if isinstance(k, torch.Tensor)]
        if any(k is None for k in keys) or len(lists) > 1 or any(k.ndim > 1 for k in lists):
            return self._gathered(keys)
        result, left = self, []
        for name, k in zip(self.kept, keys, strict=True):
            if name == "batch" and not isinstance(k, int) and not torch.equal(_places(k, 1), torch.zeros(1).long()):
                return self._gathered(keys)
            if not isinstance(k, int):
                left.append(name)
            if not (isinstance(k, slice) and k == slice(None)):
                result = result._taken(name, _places(k, self._size(name)))
        return replace(result, kept=tuple(left))._settled()

    def _settled(self) -> Any:
        """Itself while it has more rows than are computed at once, or rows that nobody named; else a tensor."""
        lazy = "rows" in self.kept and (self.whole or self.rows > ROWS_AT_ONCE)
        return self if lazy else self.dense()

    def _spread(self, key: Any) -> list:
        """One int, slice or tensor of places per dimension, and None where a new one comes in."""
        keys = [plain_key(k) for k in (key if isinstance(key, tuple) else (key,))]
        named = sum(1 for k in keys if k is not None and k is not Ellipsis)
        if named > self.ndim:
            raise IndexError(f"too many indices for attention of {self.ndim} dimensions")
        at = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
        keys[at : at + 1] = [slice(None)] * (self.ndim - named)
        if any(k is Ellipsis for k in keys):
            raise IndexError("an index can have only one ellipsis ('...')")
        sizes = iter(self.shape)
        return [None if k is None else checked_key(k, next(sizes)) for k in keys]

    def _taken(self, name: str, places: torch.Tensor) -> "LazyAttention":
        """Only these places of one dimension."""
        if name == "batch":
            return self
        if name == "rows":
            return replace(self, rows=len(places), whole=False, read=lambda rows: self.read(places[rows]))
        changes: dict[str, Any] = {name: len(places)}
        dim = 0 if name == "heads" else 2

        def read(rows: torch.Tensor) -> torch.Tensor:
            block = self._some(rows)
            return block.index_select(dim, places.to(block.device))

        return replace(self, read=read, **changes)

    def _gathered(self, keys: list) -> torch.Tensor:
        """New dimensions, and several lists read together, from the rows, heads and columns that occur in them."""
        inner: list = []
        result, names = self, iter(self.kept)
        for k in keys:
            if k is None:
                inner.append(None)
                continue
            name = next(names)
            places = _places(k, self._size(name))
            if name == "batch":
                inner.append(k)
            elif isinstance(k, slice):
                result = result if k == slice(None) else result._taken(name, places)
                inner.append(slice(None))
            else:
                different, again = places.unique(return_inverse=True)
                result = result._taken(name, different)
                inner.append(int(again) if isinstance(k, int) else again.to(self.device))
        return result._tensor("a new dimension or an index of several lists")[tuple(inner)]

    def select(self, dim: int, index: int) -> Any:
        """As a tensor's."""
        return self._at(dim, index)

    def narrow(self, dim: int, start: int, length: int) -> Any:
        """As a tensor's."""
        size = self.shape[dim]
        start = start + size if start < 0 else start
        if min(start, length) < 0 or start + length > size:
            raise IndexError(f"{length} places from {start} on do not lie within {size}")
        return self._at(dim, slice(start, start + length))

    def index_select(self, dim: int, index: torch.Tensor) -> Any:
        """As a tensor's."""
        return self._at(dim, index.reshape(-1))

    def _at(self, dim: int, key: Any) -> Any:
        self.shape[dim]  # may raise IndexError
        return self[(slice(None),) * (dim % self.ndim) + (key,)]

    def squeeze(self, dim: Any = None) -> Any:
        """As a tensor's."""
        listed = range(self.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
        gone = {self.kept[d] for d in listed if self.shape[d] == 1}
        return replace(self, kept=tuple(name for name in self.kept if name not in gone))._settled()

    # Copies that need none.

    def to(self, *args: Any, **kwargs: Any) -> "LazyAttention":
        """As a tensor's, for a dtype or a device."""
        wanted = torch.empty(0, dtype=self.dtype, device=self.device).to(*args, **kwargs)
        return replace(self, read=self._some, dtype=wanted.dtype, device=wanted.device)

    def float(self) -> "LazyAttention":
        """As a tensor's."""
        return self.to(torch.float32)

    def double(self) -> "LazyAttention":
        """As a tensor's."""
        return self.to(torch.float64)

    def half(self) -> "LazyAttention":
        """As a tensor's."""
        return self.to(torch.float16)

    def bfloat16(self) -> "LazyAttention":
        """As a tensor's."""
        return self.to(torch.bfloat16)

    def cpu(self) -> "LazyAttention":
        """As a tensor's."""
        return self.to("cpu")

    def detach(self) -> "LazyAttention":
        """Itself: it carries no gradient."""
        return self

    def clone(self) -> "LazyAttention":
        """Itself: nobody can change it."""
        return self

    def contiguous(self) -> "LazyAttention":
        """Itself."""
        return self

    # Everything else a tensor can do: for rows that were named, on the tensor; for the whole map, refused.

    def _tensor(self, what: str) -> torch.Tensor:
        if self.whole:
            raise needs_all(what)
        return self.dense()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = getattr(func, "__name__", str(func))
        if name in _FUNCTIONS and args and isinstance(args[0], LazyAttention):
            return getattr(args[0], name)(*args[1:], **(kwargs or {}))
        if name.endswith("_") and not name.endswith("__"):
            raise _unchangeable(f"torch.{name}")

        def tensors(given: Any) -> Any:
            if isinstance(given, LazyAttention):
                return given._tensor(f"torch.{name}")
            if isinstance(given, dict):
                return {key: tensors(value) for key, value in given.items()}
            return type(given)(map(tensors, given)) if type(given) in (list, tuple) else given

        return func(*tensors(args), **tensors(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if not hasattr(torch.Tensor, name):
            raise AttributeError(f"LazyAttention has no {name!r}")
        if name in _PROPERTIES:
            return getattr(torch.empty(0, dtype=self.dtype, device=self.device), name)
        if name.endswith("_"):
            raise _unchangeable(f".{name}")
        return getattr(self._tensor(f".{name}"), name)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise _unchangeable("an assignment to a part")

    def __eq__(self, other: object) -> Any:
        return False if other is None else self._tensor("the operator eq") == other

    def __ne__(self, other: object) -> Any:
        return True if other is None else self._tensor("the operator ne") != other

    __hash__ = object.__hash__


class Places:
    """Where the maxima stand, which is not known: every use is refused."""

    def __getattr__(self, name: str) -> Any:
        raise needs_all("where the maxima of attention.max(dim=...) stand")


class Maximum(NamedTuple):
    """What `max(dim=...)` gives: the values; where they stand is not known."""

    values: Any
    indices: Any = Places()


_FUNCTIONS = ("mean", "sum", "amax", "max", "select", "narrow", "index_select", "squeeze", "clone", "detach")
_PROPERTIES = ("requires_grad", "is_floating_point", "is_cuda", "is_complex", "is_sparse", "layout", "grad", "grad_fn")
_OPERATORS = (
    *("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "rfloordiv", "mod", "rmod"),
    *("divmod", "rdivmod", "pow", "rpow", "matmul", "rmatmul", "and", "rand", "or", "ror", "xor", "rxor"),
    *("lshift", "rlshift", "rshift", "rrshift", "neg", "pos", "abs", "invert", "lt", "le", "gt", "ge"),
    *("bool", "float", "int", "index", "complex", "array", "contains", "reversed", "dlpack", "dlpack_device", "round"),
)


def _operator(name: str) -> Any:
    def apply(self: LazyAttention, *others: Any, **options: Any) -> Any:
        return getattr(self._tensor(f"the operator {name}"), f"__{name}__")(*others, **options)

    return apply


for _name in _OPERATORS:
    setattr(LazyAttention, f"__{_name}__", _operator(_name))


def _unchangeable(what: str) -> InputError:
    return InputError(
        f"{what} would change the attention map, which is only computed to be read; change a copy of the part you use, "
        "or attention.dense()"
    )


def _places(key: Any, size: int) -> torch.Tensor:
    """What a checked key names, `[places]`, or of the key's own shape."""
    return torch.arange(size)[key] if isinstance(key, slice) else torch.tensor([key]) if isinstance(key, int) else key
