"""ViP-LLaVA: LLaVA whose projector takes in several layers of the tower, one beside the other."""

from seeless.core.family import Family

FAMILY = Family(title="ViP-LLaVA", model_types=("vipllava",))
