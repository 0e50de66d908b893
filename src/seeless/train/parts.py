"""Which weights are trained."""

import importlib.util
from collections.abc import Collection
from typing import Any

from torch import nn

from seeless import models
from seeless.errors import BudgetError, MissingExtra
from seeless.train.settings import Part

INSTALL = 'pip install "seeless[train]"'


def check_extras(lora: bool, deepspeed: bool) -> None:
    """Raise `MissingExtra` with the install command if a package that training needs is absent."""
    for package, wanted, install in (
        ("accelerate", True, INSTALL),
        ("peft", lora, INSTALL),
        ("deepspeed", deepspeed, "pip install deepspeed"),
    ):
        if wanted and importlib.util.find_spec(package) is None:
            raise MissingExtra(f"this training needs {package}: {install}")


def choose_weights(model: nn.Module, freeze: Collection[Part], lora: int | None) -> nn.Module:
    """The model with only those weights trained that are not frozen, or a PEFT model with LoRA on their linear layers.

    The head (`lm_head`) belongs to the decoder and is trained with it, but gets no LoRA.

    Raises:
        BudgetError: everything is frozen.
        MissingExtra: LoRA is wanted, and PEFT is not installed.
    """
    names = models.parameter_names(model)
    wanted = {name for part, own in names.items() if part not in freeze for name in own}
    if not wanted:
        raise BudgetError(f"with {', '.join(freeze)} frozen there is nothing to train")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in wanted and lora is None)
    return model if lora is None else _with_lora(model, wanted, lora)


def _with_lora(model: Any, wanted: set[str], rank: int) -> nn.Module:
    check_extras(lora=True, deepspeed=False)
    from peft import LoraConfig, get_peft_model

    head = model.get_output_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and f"{name}.weight" in wanted
    ]
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear, task_type="CAUSAL_LM"))
