"""Extensions of griffe, which reads the package for the reference."""

import re

from griffe import Class, Extension, Module

BASE = "seeless.strategy.Strategy"
EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


def classes(parent: Module | Class) -> list[Class]:
    """All classes of a package."""
    found = []
    for member in parent.members.values():
        if not member.is_alias and (member.is_class or member.is_module):
            found += [*([member] if member.is_class else []), *classes(member)]
    return found


class StrategyFields(Extension):
    """Subclasses of `Strategy` are dataclasses, which no decorator says.

    Runs before griffe's own extension for dataclasses, which makes signatures.
    """

    def on_package(self, *, pkg, **kwargs):
        """Give the subclasses the decorator of their base class."""
        (base,) = (each for each in classes(pkg) if each.path == BASE)
        for each in classes(pkg):
            if base in each.mro():
                each.decorators = [*each.decorators, *base.decorators]


class Examples(Extension):
    """Examples that doctest runs are code; to Markdown `>>>` is a quotation."""

    def on_object(self, *, obj, **kwargs):
        """Put fences around them."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
