"""What a name on the command line stands for: a strategy of seeless' own, or a guest of `seeless.vtr`."""

import dataclasses
import difflib
from dataclasses import Field, dataclass
from typing import TYPE_CHECKING, Any

import seeless as sl
from seeless.errors import brief

if TYPE_CHECKING:
    from seeless.strategy import Recipe

GUEST = "vtr:"
OF_YOUR_OWN = "(one of your own is known once its file is given as plugin)"


@dataclass(frozen=True)
class Choice:
    """A strategy, by the name it was asked for.

    Args:
        name: as given, with "vtr:" if it had that.
        flags_of: the dataclass whose fields are its flags: the strategy's own class, or a guest's configuration class.
        guest: its name in `seeless.vtr.VTR_REGISTRY`; None for one of seeless' own.
    """

    name: str
    flags_of: type
    guest: str | None

    @property
    def prefix(self) -> str:
        """What stands before the dot in a flag for this strategy only."""
        return self.name.replace("-", "_")

    def knobs(self) -> list[Field]:
        """The fields that can be set by flags: all but a guest's `strategy`, which is its name."""
        return [
            knob
            for knob in dataclasses.fields(self.flags_of)
            if knob.init and (self.guest is None or knob.name != "strategy")
        ]

    def build(self, values: dict[str, Any]) -> "sl.Strategy | Recipe":
        """The strategy, or a guest's configuration, with these fields.

        Raises:
            BudgetError: a field that is missing, or a value it cannot take.
        """
        if self.guest is None:
            return sl.get(self.name, **values)
        try:
            return self.flags_of(strategy=self.guest, **values)
        except sl.SeelessError:
            raise
        except (TypeError, ValueError) as error:  # of a configuration class that is the user's own
            raise sl.BudgetError(f"{self.name}: {error}") from error


def guest_names() -> list[str]:
    """The guests as they are asked for, sorted: "vtr:" in front where seeless has a strategy of this name, too.

    >>> "vtr:priortr" in guest_names()
    True
    """
    from seeless.vtr import VTR_REGISTRY

    own = set(sl.available()) - set(shadowed())
    return sorted(GUEST + name if name in own else name for name in VTR_REGISTRY)


def choose(name: str) -> Choice:
    """What a name stands for: a plugin's guest, else seeless' own strategy, else a guest; "vtr:NAME" is a guest.

    >>> choose("fastv").guest, choose("vtr:fastv").guest
    (None, 'fastv')

    Raises:
        UnknownStrategy: neither has this name; the message has near matches of both.
        BudgetError: the guest's configuration class is no dataclass of its own.
    """
    from seeless.registry import strategy_class
    from seeless.vtr.registry import VTR_REGISTRY, config_class

    guests = guest_names()
    if name in sl.available() and name not in shadowed():
        return Choice(name, strategy_class(name), None)
    guest = name.removeprefix(GUEST)
    if guest not in VTR_REGISTRY:
        known = {known.removeprefix(GUEST): known for known in guests}
        if guest == name:
            known |= {known: known for known in sl.available()}
        near = [known[each] for each in difflib.get_close_matches(guest.lower(), known, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known.values())}"
        raise sl.UnknownStrategy(f"no strategy is called {brief(name)}; {hint} {OF_YOUR_OWN}")
    config = config_class(guest)
    if "__dataclass_fields__" not in vars(config):
        raise sl.BudgetError(f"{config.__name__} is no dataclass, so its fields are no flags; put @dataclass above it")
    return Choice(name, config, guest)


def shadowed() -> list[str]:
    """Names of seeless' own strategies that a plugin has registered a guest under: there the guest is meant."""
    from seeless.vtr import VTR_REGISTRY

    both = set(sl.available()) & set(VTR_REGISTRY)
    return sorted(name for name in both if not VTR_REGISTRY[name].__module__.startswith("seeless."))
