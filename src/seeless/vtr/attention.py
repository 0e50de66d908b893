"""An attention map that is a tensor and computes only what is read."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from seeless.errors import InputError
from seeless.vtr.deferred import Deferred, plain
from seeless.vtr.wholemaps import WholeMaps

ROWS_AT_ONCE = 64
Read = Callable[[torch.Tensor], torch.Tensor]
aten = torch.ops.aten


class LazyAttention(Deferred):
    """One layer's attention after the softmax, `[1, heads, seq, seq]`, of which only what is asked for is computed.

    Indexing gives a plain tensor where it names at most `ROWS_AT_ONCE` rows: `attention[:, :, -1, s:e]`,
    `attention[0][:, e:-1, s:e]`, `attention[:, :, rows]`. More rows stay lazy until they are used. So do all rows:
    `attention[0]`, `attention.mean(dim=1)`, `attention[..., s:e]`, `attention.float()`; their means, sums, maxima and
    minima run through the map a few rows at a time. Whatever else needs them at once gets them, up to
    `wholemaps.DENSE_AT_MOST` bytes and with a warning; `attention.dense()` gives them without either.

    It may be written into while nothing was read from it; what is read is a copy.

    Args:
        read: attention of some rows, `[rows]` (in 0 ... `rows` - 1) -> `[heads, rows, rows]`.
        heads: how many.
        rows: how many.
        dtype: of the result.
        device: of the result.
        maps: asked before all rows come into being.
    """

    _read: Read  # some rows, with as many dimensions as this has
    _dim: int  # of the rows
    _columns: int | None  # dimension of the columns, while there is one
    _whole: bool  # whether no row was named
    _shared: bool  # whether torch would share the numbers with something read from it, or that it was read from
    _maps: WholeMaps

    @staticmethod
    def __new__(
        cls: type,
        read: Read,
        heads: int,
        rows: int,
        dtype: torch.dtype,
        device: torch.device,
        maps: WholeMaps | None = None,
    ) -> "LazyAttention":
        return Deferred.__new__(cls, read, (1, heads, rows, rows), dtype, device)  # type: ignore[return-value]

    def __init__(
        self,
        read: Read,
        heads: int,
        rows: int,
        dtype: torch.dtype,
        device: torch.device,
        maps: WholeMaps | None = None,
    ) -> None:
        self._made = None
        self._read, self._dim, self._columns = (lambda places: read(places)[None]), 2, 3
        self._whole, self._shared, self._maps = True, False, maps or WholeMaps()

    def _part(self, read: Read, like: torch.Tensor, device: torch.device, dims: tuple, shares: bool) -> "LazyAttention":
        """Something read from this, with the shape and dtype of `like`, and its rows and columns at `dims`."""
        part: Any = Deferred.__new__(LazyAttention, read, tuple(like.shape), like.dtype, device)
        part._made, part._read, part._whole, part._maps = None, read, self._whole, self._maps
        part._dim, part._columns = dims
        part._shared = shares
        self._shared = self._shared or shares
        return part

    # The numbers.

    def _rows(self, places: torch.Tensor) -> torch.Tensor:
        if len(places) == 0:
            shape = [0 if d == self._dim else size for d, size in enumerate(self.shape)]
            return torch.empty(shape, dtype=self.dtype, device=self.device)
        return plain(self._read, self, places)

    def _blocks(self) -> Iterator[torch.Tensor]:
        for places in torch.arange(self.shape[self._dim]).split(ROWS_AT_ONCE):
            yield self._rows(places)

    def _numbers(self) -> torch.Tensor:
        found = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for places in torch.arange(self.shape[self._dim]).split(ROWS_AT_ONCE):
            found.narrow(self._dim, int(places[0]), len(places)).copy_(self._rows(places))
        return found

    def _used(self, what: str) -> torch.Tensor:
        if self._made is None:
            self._maps.ask(what, self.shape, self.dtype, self._whole)
        return self.dense()

    def _changed(self, what: str) -> torch.Tensor:
        if self._made is None and self._shared:
            raise InputError(
                f"{self._maps.name}: {what} writes into an attention map of which something was read before, which "
                "would not be written into; change a copy instead, attention.clone()"
            )
        return self._used(what)

    # Operations that need no numbers yet, or not all at once.

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        first = args[0] if args else None
        if isinstance(first, LazyAttention) and first._made is None and func in _LAZY:
            found = getattr(first, _LAZY[func])(func, args[1:], kwargs or {})
            if found is not NotImplemented:
                return found
        if func._can_decompose():  # in inference mode, operations arrive that are made of others
            return func.decompose(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _like(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """What an operation gives, without its numbers; with torch's own errors."""
        return func(torch.empty(self.shape, dtype=self.dtype, device="meta"), *args, **kwargs)

    def _each_row(
        self, func: Any, args: tuple, kwargs: dict, gone: tuple = (), new: int | None = None, shares: bool = True
    ) -> Any:
        """An operation that does the same to every row, done to those that are read.

        Args:
            gone: dimensions that disappear.
            new: one that comes in, where it stands then.
        """
        found = self._like(func, args, kwargs)

        def moved(d: int | None) -> int | None:
            if d is None or d in gone:
                return None
            d -= sum(other < d for other in gone)
            return d + 1 if new is not None and new <= d else d

        def part(like: torch.Tensor, pick: Callable) -> LazyAttention:
            read = lambda places: pick(func(self._rows(places), *args, **kwargs))  # noqa: E731
            return self._part(read, like, self.device, (moved(self._dim), moved(self._columns)), shares)

        if isinstance(found, torch.Tensor):
            return part(found, lambda result: result)
        return type(found)(part(like, lambda result, i=i: result[i]) for i, like in enumerate(found))

    def _named(self, places: torch.Tensor, shares: bool) -> Any:
        """Only these rows: a tensor if they are few."""
        self._shared = self._shared or shares
        if len(places) <= ROWS_AT_ONCE:
            return self._rows(places)
        shape = [len(places) if d == self._dim else size for d, size in enumerate(self.shape)]
        like = torch.empty(shape, dtype=self.dtype, device="meta")
        read = lambda rows: self._rows(places[rows])  # noqa: E731
        part = self._part(read, like, self.device, (self._dim, self._columns), shares)
        part._whole = False
        return part

    def _select(self, func: Any, args: tuple, kwargs: dict) -> Any:
        self._like(func, args, kwargs)
        dim, index = args[0] % self.ndim, int(args[1])
        if dim == self._dim:
            return self._named(torch.tensor([index % self.shape[dim]]), True).select(dim, 0)
        return self._each_row(func, args, kwargs, gone=(dim,))

    def _slice(self, func: Any, args: tuple, kwargs: dict) -> Any:
        self._like(func, args, kwargs)
        dim, start, end, step = (args + (0, None, None, 1)[len(args) :])[:4]
        if dim % self.ndim == self._dim:
            rows = torch.arange(self.shape[self._dim])[start:end:step]
            whole = len(rows) == self.shape[self._dim]
            return self._alias(aten.alias.default, (), {}) if whole else self._named(rows, True)
        return self._each_row(func, args, kwargs)

    def _index_select(self, func: Any, args: tuple, kwargs: dict) -> Any:
        dim = args[0] % self.ndim
        keys: list = [None] * dim + [args[1].reshape(-1)]
        return self._index(aten.index.Tensor, (keys,), {})

    def _index(self, func: Any, args: tuple, kwargs: dict) -> Any:
        keys = list(args[0])
        if any(key is not None and _is_mask(key) and key.ndim != 1 for key in keys):
            return NotImplemented
        keys = [None if key is None else _places(key, size) for key, size in zip(keys, self.shape, strict=False)]
        listed = [d for d, key in enumerate(keys) if key is not None]
        if listed == [self._dim] and keys[self._dim].ndim == 1:
            return self._named(keys[self._dim], False)
        if self._dim in listed:
            rows, again = keys[self._dim].unique(return_inverse=True)
            part = self._named(rows, False)
            part = part._used("an index of several lists") if isinstance(part, LazyAttention) else part
            keys[self._dim] = again
            return func(part, [None if key is None else key.to(part.device) for key in keys])
        if len(listed) > 1 or any(keys[d].ndim != 1 for d in listed):
            return NotImplemented
        dim = listed[0]
        like = torch.empty(
            [len(keys[dim]) if d == dim else size for d, size in enumerate(self.shape)],
            dtype=self.dtype,
            device="meta",
        )
        read = lambda places: self._rows(places).index_select(dim, keys[dim].to(self.device))  # noqa: E731
        return self._part(read, like, self.device, (self._dim, self._columns), False)

    def _unsqueeze(self, func: Any, args: tuple, kwargs: dict) -> Any:
        self._like(func, args, kwargs)
        return self._each_row(func, args, kwargs, new=args[0] % (self.ndim + 1))

    def _squeeze(self, func: Any, args: tuple, kwargs: dict) -> Any:
        self._like(func, args, kwargs)
        given = args[0] if args else range(self.ndim)
        dims = {d % self.ndim for d in ([given] if isinstance(given, int) else given)}
        gone = tuple(d for d in sorted(dims) if self.shape[d] == 1)
        if self._dim in gone:
            return NotImplemented
        return self._each_row(aten.squeeze.dims, (list(gone),), {}, gone=gone)

    def _unbind(self, func: Any, args: tuple, kwargs: dict) -> Any:
        dim = (args[0] if args else 0) % self.ndim
        return NotImplemented if dim == self._dim else self._each_row(func, args, kwargs, gone=(dim,))

    def _split(self, func: Any, args: tuple, kwargs: dict) -> Any:
        dim = (args[1] if len(args) > 1 else 0) % self.ndim
        return NotImplemented if dim == self._dim else self._each_row(func, args, kwargs)

    def _to_copy(self, func: Any, args: tuple, kwargs: dict) -> Any:
        like = torch.empty(self.shape, dtype=kwargs.get("dtype") or self.dtype, device="meta")
        device = torch.empty(0, device=kwargs.get("device") or self.device).device
        return self._part(self._rows, like, device, (self._dim, self._columns), False)

    def _clone(self, func: Any, args: tuple, kwargs: dict) -> Any:
        return self._each_row(aten.alias.default, (), {}, shares=False)

    def _alias(self, func: Any, args: tuple, kwargs: dict) -> Any:
        return self._each_row(aten.alias.default, (), {})

    def _with_places(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Maxima or minima over one dimension, and where they stand."""
        self._like(func, args, kwargs)
        dim, keep = args[0] % self.ndim, args[1] if len(args) > 1 else False
        if dim in (self._dim, self._columns):
            return NotImplemented
        return self._each_row(func, args, kwargs, gone=() if keep else (dim,), shares=False)

    def _reduce(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Over the rows or the columns at once, a few rows at a time; over other dimensions when it is read."""
        like, how = self._like(func, args, kwargs), _REDUCTIONS[func]
        dims = tuple(d % self.ndim for d in (args[0] if args else None) or range(self.ndim))
        keep = args[1] if len(args) > 1 else False
        if self._dim not in dims and self._columns not in dims:
            return self._each_row(func, args, kwargs, gone=() if keep else dims, shares=False)
        if self.shape[self._dim] == 0:
            return NotImplemented
        if self._dim not in dims:
            at = self._dim - (0 if keep else sum(d < self._dim for d in dims))
            return torch.cat([func(block, *args, **kwargs) for block in self._blocks()], at)
        total: Any = None
        for block in self._blocks():
            exact = block if how in ("amax", "amin") else block.double()  # which keeps what many rows would lose
            part = getattr(exact, "sum" if how == "mean" else how)(dim=dims, keepdim=True)
            total = part if total is None else _TOGETHER[how](total, part)
        if how == "mean":
            total = total / torch.Size(self.shape[d] for d in dims).numel()
        return total.to(like.dtype).reshape(like.shape)


_REDUCTIONS = {
    aten.mean.dim: "mean",
    aten.mean.default: "mean",
    aten.sum.dim_IntList: "sum",
    aten.sum.default: "sum",
    aten.amax.default: "amax",
    aten.amin.default: "amin",
    aten.max.default: "amax",
    aten.min.default: "amin",
}
_TOGETHER: dict[str, Callable] = {"mean": torch.add, "sum": torch.add, "amax": torch.maximum, "amin": torch.minimum}
_LAZY = {
    aten.select.int: "_select",
    aten.slice.Tensor: "_slice",
    aten.index_select.default: "_index_select",
    aten.index.Tensor: "_index",
    aten.unsqueeze.default: "_unsqueeze",
    aten.squeeze.default: "_squeeze",
    aten.squeeze.dim: "_squeeze",
    aten.squeeze.dims: "_squeeze",
    aten.unbind.int: "_unbind",
    aten.split.Tensor: "_split",
    aten._to_copy.default: "_to_copy",
    aten.clone.default: "_clone",
    aten.alias.default: "_alias",
    aten.detach.default: "_alias",
    aten.max.dim: "_with_places",
    aten.min.dim: "_with_places",
    **dict.fromkeys(_REDUCTIONS, "_reduce"),
}


def _is_mask(key: torch.Tensor) -> bool:
    return key.dtype in (torch.bool, torch.uint8)


def _places(key: torch.Tensor, size: int) -> torch.Tensor:
    """What a list or mask names in a dimension of `size`, on the CPU."""
    key = key.cpu()
    if _is_mask(key):
        if len(key) != size:
            raise IndexError(f"a mask of {len(key)} does not fit attention with {size} there")
        return key.nonzero()[:, 0]
    if key.is_floating_point():
        raise IndexError(f"places must be whole numbers, not {key.dtype}")
    if key.numel() and not (-size <= int(key.min()) and int(key.max()) < size):
        raise IndexError(f"an index is out of range for attention with {size} there")
    return key.long() % size if size else key.long()
