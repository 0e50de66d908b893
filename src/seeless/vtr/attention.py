"""An attention map that looks whole and computes only what is read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from seeless.errors import InputError

ROWS_AT_ONCE = 64
NAMES = ("batch", "heads", "rows", "columns")
Read = Callable[[torch.Tensor], torch.Tensor]


class Maximum(NamedTuple):
    """What `max(dim=...)` gives: the values; where they stand is not known."""

    values: Any
    indices: None = None


@dataclass(frozen=True, eq=False)
class LazyAttention:
    """One layer's attention after the softmax, `[1, heads, seq, seq]`, of which only what is asked for is computed.

    Indexing works as on a tensor, and gives a tensor as soon as it names the rows wanted: `attention[:, :, -1, s:e]`,
    `attention[0][:, e:-1, s:e]`, `attention[:, :, rows]`. Where all rows remain, the result stays lazy:
    `attention[0]`, `attention.mean(dim=1)`, `attention[..., s:e]`. Means, sums and maxima over rows or columns run
    through the map a few rows at a time. Anything else needs the whole map: `attention.dense()`, `heads * seq * seq`
    numbers at once.

    Args:
        read: attention of some rows, `[rows]` -> `[heads, rows, seq]`.
        heads: how many.
        length: of the sequence.
        dtype, device: of the result.
        kept: the dimensions that are left, in order.
        of_heads, of_rows, of_columns: which are left; None = all.
        over_heads: what the heads were reduced by, if they were.
    """

    read: Read
    heads: int
    length: int
    dtype: torch.dtype
    device: torch.device
    kept: tuple[str, ...] = NAMES
    of_heads: torch.Tensor | None = None
    of_rows: torch.Tensor | None = None
    of_columns: torch.Tensor | None = None
    over_heads: str | None = None

    # What it looks like.

    def _sizes(self) -> dict[str, int]:
        def count(chosen: torch.Tensor | None, everything: int) -> int:
            return everything if chosen is None else len(chosen)

        return {
            "batch": 1,
            "heads": count(self.of_heads, self.heads),
            "rows": count(self.of_rows, self.length),
            "columns": count(self.of_columns, self.length),
        }

    @property
    def shape(self) -> torch.Size:
        """As a tensor's."""
        sizes = self._sizes()
        return torch.Size(sizes[name] for name in self.kept)

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

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyAttention(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device})"

    # Computing.

    def dense(self) -> torch.Tensor:
        """All that is left as a tensor; of the whole map that is `heads * seq * seq` numbers."""
        return self._reduced((), False)

    def _blocks(self) -> Any:
        """`[heads or 1, some rows, columns]`, a few rows at a time."""
        rows = torch.arange(self.length) if self.of_rows is None else self.of_rows
        for some in rows.split(ROWS_AT_ONCE) if len(rows) else (rows,):
            block = self.read(some)
            block = block if self.of_heads is None else block[self.of_heads.to(block.device)]
            block = block if self.of_columns is None else block[:, :, self.of_columns.to(block.device)]
            block = block.to(self.device, self.dtype)
            yield block if self.over_heads is None else _reduce(block, self.over_heads, (0,))

    def _reduced(self, dims: tuple[str, ...], keepdim: bool, how: str = "sum") -> torch.Tensor:
        """What is left, reduced over some dimensions, without ever holding more than the result and a few rows."""
        inner = tuple(i for i, name in enumerate(("heads", "rows", "columns")) if name in dims and name != "rows")
        parts, total, rows = [], None, 0
        for block in self._blocks():
            rows += block.shape[1]
            if "rows" not in dims:
                parts.append(_reduce(block, how, inner) if inner else block)
                continue
            if how == "amax":
                part = _reduce(block, "amax", (*inner, 1))
                total = part if total is None else torch.maximum(total, part)
            else:  # sums in double keep what a mean over many rows would lose
                part = _reduce(block.double(), how, inner) if inner else block.double()
                part = part.sum(1, keepdim=True)
                total = part if total is None else total + part
        if "rows" in dims:
            assert total is not None
            result = (total / rows if how == "mean" else total).to(self.dtype)
        else:
            result = torch.cat(parts, 1)
        gone = {name for name in NAMES if name not in self.kept} | (set() if keepdim else set(dims))
        result = result[None]
        return result.squeeze(tuple(i for i, name in enumerate(NAMES) if name in gone))

    def _over(self, how: str, dim: Any, keepdim: bool) -> Any:
        if dim is None:
            names = self.kept
        else:
            listed = [dim] if isinstance(dim, int) else list(dim)
            names = tuple(self.kept[d] for d in listed)
        left = {name for name in self.kept if name not in names}
        if names == ("heads",) and not keepdim and "rows" in left and self.of_rows is None:
            return replace(self, kept=tuple(n for n in self.kept if n != "heads"), over_heads=how)
        if names == ("batch",):
            return self if keepdim else replace(self, kept=self.kept[1:])
        return self._reduced(names, keepdim, how)

    def mean(self, dim: Any = None, keepdim: bool = False) -> Any:
        """As a tensor's; over the heads alone it stays lazy."""
        return self._over("mean", dim, keepdim)

    def sum(self, dim: Any = None, keepdim: bool = False) -> Any:
        """As a tensor's; over the heads alone it stays lazy."""
        return self._over("sum", dim, keepdim)

    def amax(self, dim: Any = (), keepdim: bool = False) -> Any:
        """As a tensor's; over the heads alone it stays lazy."""
        return self._over("amax", None if dim == () else dim, keepdim)

    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """As a tensor's, but of `max(dim=...)` only the values are known."""
        values = self._over("amax", dim, keepdim)
        return values if dim is None else Maximum(values)

    # Reading parts.

    def __getitem__(self, key: Any) -> Any:
        keys = list(key) if isinstance(key, tuple) else [key]
        named = sum(1 for k in keys if k is not None and k is not Ellipsis)
        if named > self.ndim:
            raise IndexError(f"too many indices for attention of {self.ndim} dimensions")
        if any(k is Ellipsis for k in keys):
            at = next(i for i, k in enumerate(keys) if k is Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - named)
        keys += [slice(None)] * (self.ndim - sum(1 for k in keys if k is not None))
        if any(k is None for k in keys):
            at = keys.index(None)
            inner = self[tuple(k for i, k in enumerate(keys) if i != at)]
            return _tensor(inner, "a new dimension").unsqueeze(at)
        lists = [i for i, k in enumerate(keys) if isinstance(k, list | torch.Tensor) and not _is_number(k)]
        if len(lists) > 1:
            return self._paired(keys, lists)
        sizes, result, dropped = self._sizes(), self, []
        for name, k in zip(self.kept, keys, strict=True):
            if isinstance(k, slice) and k == slice(None):
                continue
            chosen, single = _chosen(k, sizes[name])
            if name != "batch":
                field = f"of_{name}"
                before = getattr(result, field)
                changes: dict[str, Any] = {field: chosen if before is None else before[chosen]}
                result = replace(result, **changes)
            elif not single and len(chosen) != 1:
                return _tensor(result, "this index on the batch")[k]
            if single:
                dropped.append(name)
        result = replace(result, kept=tuple(name for name in result.kept if name not in dropped))
        everything = result.of_rows is None or (len(result.of_rows) * 2 > self.length and "rows" in result.kept)
        return result if everything else result.dense()

    def _paired(self, keys: list, lists: list[int]) -> torch.Tensor:
        """Several lists of indices, read together element by element, from the rows and columns that occur in them."""
        result = self
        for i in lists:
            name = self.kept[i]
            chosen, _ = _chosen(keys[i], self._sizes()[name])
            if name in ("rows", "columns"):
                different, chosen = chosen.unique(return_inverse=True)
                changes: dict[str, Any] = {f"of_{name}": different}
                result = replace(result, **changes)
            keys[i] = chosen
        return result.dense()[tuple(keys)]

    def select(self, dim: int, index: int) -> Any:
        """As a tensor's."""
        return self[(slice(None),) * (dim % self.ndim) + (index,)]

    def narrow(self, dim: int, start: int, length: int) -> Any:
        """As a tensor's."""
        return self[(slice(None),) * (dim % self.ndim) + (slice(start, start + length),)]

    def index_select(self, dim: int, index: torch.Tensor) -> Any:
        """As a tensor's."""
        return self[(slice(None),) * (dim % self.ndim) + (index,)]

    def squeeze(self, dim: int | None = None) -> Any:
        """As a tensor's."""
        if "batch" in self.kept and (dim is None or dim % self.ndim == 0):
            return replace(self, kept=self.kept[1:])
        return self

    # Copies that need none.

    def to(self, *args: Any, **kwargs: Any) -> "LazyAttention":
        """As a tensor's, for a dtype or a device."""
        wanted = torch.empty(0, dtype=self.dtype, device=self.device).to(*args, **kwargs)
        return replace(self, dtype=wanted.dtype, device=wanted.device)

    def float(self) -> "LazyAttention":
        """As a tensor's."""
        return self.to(torch.float32)

    def double(self) -> "LazyAttention":
        """As a tensor's."""
        return self.to(torch.float64)

    def detach(self) -> "LazyAttention":
        """Itself: it carries no gradient."""
        return self

    def clone(self) -> "LazyAttention":
        """Itself: nobody can change it."""
        return self

    def contiguous(self) -> "LazyAttention":
        """Itself."""
        return self

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = getattr(func, "__name__", str(func))
        if name in _FUNCTIONS and isinstance(args[0], LazyAttention):
            return getattr(args[0], name)(*args[1:], **(kwargs or {}))
        raise _needs_all(f"torch.{name}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if hasattr(torch.Tensor, name):
            raise _needs_all(f".{name}")
        raise AttributeError(f"LazyAttention has no {name!r}")


_FUNCTIONS = ("mean", "sum", "amax", "max", "select", "narrow", "index_select", "squeeze", "clone", "detach")


def _operator(name: str) -> Any:
    def refuse(self: LazyAttention, *others: Any) -> Any:
        raise _needs_all(f"the operator {name}")

    return refuse


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "matmul", "pow", "neg", "gt", "lt"):
    setattr(LazyAttention, f"__{_name}__", _operator(_name))


def _needs_all(what: str) -> InputError:
    return InputError(
        f"{what} needs the whole attention map; index the rows and columns you use first, such as "
        "attention[:, :, -1, start:end], or ask for all of it with attention.dense()"
    )


def _tensor(part: Any, what: str) -> torch.Tensor:
    if isinstance(part, LazyAttention):
        raise _needs_all(what)
    return part


def _is_number(key: Any) -> bool:
    return isinstance(key, torch.Tensor) and key.ndim == 0


def _chosen(key: Any, size: int) -> tuple[torch.Tensor, bool]:
    """The places a key names out of `size`, and whether it is a single one."""
    if isinstance(key, slice):
        return torch.arange(size)[key], False
    if isinstance(key, int) or _is_number(key):
        place = int(key)
        if not -size <= place < size:
            raise IndexError(f"index {place} is out of range for attention with {size} there")
        return torch.tensor([place % size]), True
    places = torch.as_tensor(key)
    if places.dtype == torch.bool:
        return places.cpu().nonzero()[:, 0], False
    places = places.cpu().long()
    if places.numel() and not (-size <= int(places.min()) and int(places.max()) < size):
        raise IndexError(f"an index is out of range for attention with {size} there")
    return places % size, False


def _reduce(block: torch.Tensor, how: str, dims: tuple[int, ...]) -> torch.Tensor:
    return getattr(block, how)(dim=dims, keepdim=True)
