"""The seam inside the vision tower: layers that see merged tokens, and the layer that sees every patch again."""

import inspect
from collections import defaultdict

import torch
from torch import nn

from seeless.core.ahead import run_ahead
from seeless.core.attention import read_nothing
from seeless.core.checks import Findings, asking
from seeless.core.family import ModelView
from seeless.core.hooks import HookSet, hook_layers
from seeless.core.inside_tower import (
    ENDS,
    LONGEST,
    check_frames,
    check_inside,
    check_unpadded,
    fit_arguments,
    fit_mask,
    lay_out,
    same_grids,
)
from seeless.core.vision import Merged, VisionTap
from seeless.decision import within
from seeless.errors import BudgetError, UnsupportedModel
from seeless.faults import check_kinds, faults
from seeless.strategy import TowerStrategy


def merging_layers(view: ModelView, kind: str, strategy: TowerStrategy, choice: int | list[int] | None = None) -> range:
    """The tower layers before which tokens merge; the one after them is the layer the projector takes.

    Args:
        choice: `vision_feature_layer` of this run; None = the config's.

    Raises:
        UnsupportedModel: the tower or the model cannot do what the strategy asks for.
        BudgetError: there is no such layer.
    """
    title, tapped = view.family.title, view.tapped_layers(kind, choice)
    check_inside(view, kind, range(strategy.first, tapped[0] + 1), "merged tokens")
    if len(set(tapped)) > 1:
        raise UnsupportedModel(
            f"the projector of this {title} model takes the outputs of several tower layers (vision_feature_layer), "
            "whose tokens are merged differently; set it to one layer, or use a strategy that acts at the entry"
        )
    if strategy.first >= tapped[0]:
        raise BudgetError(
            f"first={strategy.first} leaves no layer to merge before: the projector takes the output of tower layer "
            f"{tapped[0]}, which sees every patch again; the last layer to merge before is {tapped[0] - 1}"
        )
    if strategy.proportional:
        layer, kernel = view.tower_layers(kind)[0], view.tower(kind).config._attn_implementation
        if "attention_mask" not in inspect.signature(layer.forward).parameters:
            raise UnsupportedModel(
                f"the tower layers of {title} take no attention mask, so a merged token cannot weigh more than one "
                "patch; set proportional=False"
            )
        if kernel not in ("eager", "sdpa"):
            raise UnsupportedModel(
                f"attn_implementation={kernel!r} takes no mask with numbers, so a merged token cannot weigh more than "
                "one patch; set proportional=False, or load the model with 'sdpa' or 'eager'"
            )
    return range(strategy.first, tapped[0])


class Merging:
    """Hooks of one run of the tower, and which token stands for which.

    Tokens are numbered through all pictures, in the order in which the tower has them. From the first merger on the
    sequence is made of the patches of one token after those of another.

    Args:
        layers: before which tokens merge.
        tap: what is known of this run; its `patches` are empty if all pictures have one size.

    Raises:
        UnsupportedModel: a token is made of several frames.
    """

    def __init__(self, view: ModelView, kind: str, strategy: TowerStrategy, layers: range, tap: VisionTap) -> None:
        check_frames(view, kind)
        self.view, self.kind, self.strategy, self.layers, self.tap = view, kind, strategy, layers, tap
        self.modules = view.tower_layers(kind)
        self.started = self.merged = self.done = False
        self.findings = Findings()
        self.lead = int(view.has_class_token)

    def attach(self, hooks: HookSet) -> None:
        hook_layers(self.modules, [*self.layers, self.layers.stop], self._before, hooks)
        if (readers := self.view.family.tower_readers) is not None:
            for reader in getattr(self.view.tower(self.kind), readers):
                hooks.before(reader, self._before_reader)

    def outcome(self) -> Merged:
        """What became of the tokens, once the tap knows which tokens came out.

        Raises:
            UnsupportedModel: those are not the blocks of patches that were merged.
        """
        tap, sizes = self.tap, self.sizes_before
        if [height * width for height, width in tap.tokens] != sizes:
            raise UnsupportedModel(
                f"{tap.count} tokens came out of {self.view.family.title}'s tower, but {sum(sizes)} blocks of patches "
                "were merged; use a strategy that acts at the entry or later"
            )
        group = self.alive[self.group]
        if tap.windows is not None:  # from the tower's order to the decoder's
            windows = tap.windows.to(group.device)
            group = windows[group][windows.argsort()]
        return Merged(self.strategy, group, [list(seen) for seen in zip(*self.seen, strict=True)], self.findings)

    # What the layers see.

    def _before(self, index: int, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        names = list(inspect.signature(self.modules[index].forward).parameters)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        hidden = given.pop(names[0])
        if not self.started:
            self._start(hidden)
        if index == self.layers.stop:
            if self.merged:
                hidden = self._expanded(hidden)
            self.done = True
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, names[0]: hidden})
        targets = [counts[index - self.layers.start] for counts in self.schedule]
        if targets != self.counts:
            hidden = self._merge(index, hidden, given, targets)
        self.seen[index] = [count * self.members.shape[1] for count in targets]
        return ((hidden,), self._gathered(given, hidden)) if self.merged else (args, kwargs)

    def _before_reader(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if not self.merged or self.done:
            return None
        return (self._expanded(args[0]), *args[1:]), kwargs

    def _start(self, hidden: torch.Tensor) -> None:
        """Lay out the tokens of all pictures over the patches of the sequence."""
        check_unpadded(self.tap.seen, self.strategy.name)
        self.shape, rows = hidden.shape, hidden if hidden.ndim == 3 else hidden[None]
        self.patches = rows.shape[1] - self.lead
        grids = self.tap.patches or same_grids(len(rows), self.patches)
        members = lay_out(self.view, self.kind, grids, len(rows) * self.patches)
        self.members = torch.cat(members).to(hidden.device)
        self.sizes_before = self.counts = [len(picture) for picture in members]
        self.schedule = [self.strategy.counts(tokens, len(self.layers)) for tokens in self.counts]
        self.alive = self.group = torch.arange(len(self.members), device=hidden.device)
        self.sizes = torch.ones(len(self.members), device=hidden.device)
        everything = [height * width for height, width in grids]
        self.seen = [everything for _ in self.modules]
        self.started = True

    def _blocks(self, hidden: torch.Tensor) -> torch.Tensor:
        """The sequence as `[tokens, patches of one, dim]`, class tokens left out."""
        flat = (hidden[:, self.lead :] if hidden.ndim == 3 else hidden).flatten(0, -2)
        return flat.unflatten(0, (-1, self.members.shape[1])) if self.merged else flat[self.members]

    def _sequence(self, flat: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Patches `[patches of all pictures, dim]` in the form of `hidden`, with its class tokens."""
        if hidden.ndim == 2:
            return flat
        return torch.cat([hidden[:, : self.lead], flat.unflatten(0, (len(hidden), -1))], 1)

    def _expanded(self, hidden: torch.Tensor) -> torch.Tensor:
        """Every patch with the value of its group, in the order the tower had them."""
        group, members = self.group.to(hidden.device), self.members.to(hidden.device)
        full = self._blocks(hidden)[group].flatten(0, 1)
        return self._sequence(full[members.flatten().argsort()], hidden)

    def _merge(self, index: int, hidden: torch.Tensor, given: dict, targets: list[int]) -> torch.Tensor:
        blocks = self._blocks(hidden)
        device, exact = blocks.device, torch.promote_types(blocks.dtype, torch.float32)
        self.alive, self.group, self.sizes, self.members = (
            x.to(device) for x in (self.alive, self.group, self.sizes, self.members)
        )
        keys = self._keys(index, hidden, given)
        values, receiver = blocks.flatten(1), torch.arange(len(blocks), device=device)
        stays = torch.ones_like(receiver, dtype=torch.bool)
        for places, leave in self._alike(targets):
            places = places.to(device)
            name, where = type(self.strategy).__name__, f"before tower layer {index}"
            with asking(self.strategy, where):
                decision = self.strategy.merge(keys[places], self.sizes[places], leave)
                check_kinds(decision, places.shape, f"{name}.merge")
                found = faults(decision, count=places.shape[1] - leave, dtype=exact)
            self.findings.add(f"{name}, {where}", "picture {} of that size".format, found)
            taken = decision.values(values[places].to(exact)).to(values.dtype)
            values = values.index_put((places,), taken)
            source, slot = (within(x, places.shape[1]) for x in (decision.source, decision.slot))
            receiver[places.gather(1, source)] = places.gather(1, slot)
            stays[places] = decision.mask
        left = stays.byte().argsort(descending=True, stable=True)[: sum(targets)]
        self.sizes = torch.zeros_like(self.sizes).scatter_add(0, receiver, self.sizes)[left]
        number = (stays.cumsum(0) - 1).clamp(max=sum(targets) - 1)  # of a faulty merger more might stay
        self.group = number[receiver[self.group]]
        self.alive, self.counts, self.merged = self.alive[left], targets, True
        self.order = self._order(hidden)
        return self._sequence(values[left].unflatten(1, blocks.shape[1:]).flatten(0, 1), hidden)

    def _alike(self, targets: list[int]) -> list[tuple[torch.Tensor, int]]:
        """Pictures with as many tokens of which as many leave: places `[pictures, tokens]` of theirs, and how many."""
        found, first = defaultdict(list), 0
        for count, target in zip(self.counts, targets, strict=True):
            if target < count:
                found[count, count - target].append(torch.arange(first, first + count))
            first += count
        return [(torch.stack(places), leave) for (_, leave), places in found.items()]

    def _keys(self, index: int, hidden: torch.Tensor, given: dict) -> torch.Tensor:
        """Keys of a layer that is about to run, the mean over heads and patches of each token: `[tokens, head_dim]`."""
        given = self._gathered(given, hidden) if self.merged else dict(given)
        patches = hidden.shape[:-1].numel()
        for name in ENDS:  # all in one piece: nothing but the attention itself depends on the pieces
            if given.get(name) is not None:
                given[name] = torch.tensor([0, patches], dtype=given[name].dtype, device=given[name].device)
        for name in LONGEST:
            if given.get(name) is not None:
                given[name] = patches
        call = run_ahead(self.modules[index], hidden.detach(), (), given, past=0, check=False)
        if call is None:
            raise read_nothing(self.modules[index])
        keys = call.key.float().mean(1)
        return self._blocks(keys if hidden.ndim == 3 else keys[0]).mean(1)

    # The layers' other arguments, at the patches that are left.

    def _order(self, hidden: torch.Tensor) -> torch.Tensor:
        """Where in its row of the whole sequence each patch now stands, `[rows, patches]`, class tokens included."""
        rows = len(hidden) if hidden.ndim == 3 else 1
        patches = self.members[self.alive].view(rows, -1)
        own = patches - self.patches * torch.arange(rows, device=patches.device)[:, None] + self.lead
        return torch.cat([torch.arange(self.lead, device=own.device).expand(rows, -1), own], 1)

    def _gathered(self, given: dict, hidden: torch.Tensor) -> dict:
        return fit_arguments(given, self.order, self.view.family.title, lambda mask: self._mask(mask, hidden))

    def _mask(self, mask: torch.Tensor | None, hidden: torch.Tensor) -> torch.Tensor | None:
        """The mask at the patches that are left; with proportional attention, plus the logarithms of their sizes."""
        order = self.order.to(hidden.device)
        if mask is not None:
            mask = fit_mask(mask, order)
        if not self.strategy.proportional:
            return mask
        sizes = self.sizes.to(hidden.device).repeat_interleave(self.members.shape[1]).view(len(order), -1)
        weight = nn.functional.pad(sizes.log(), (self.lead, 0))[:, None, None].to(hidden.dtype)
        if mask is None:
            return weight
        if mask.dtype == torch.bool:
            return weight.masked_fill(~mask, torch.finfo(hidden.dtype).min)
        return mask + weight
