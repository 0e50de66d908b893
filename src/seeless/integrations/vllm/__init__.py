"""The door into vLLM: `vllm serve MODEL --hf-overrides '{"seeless": {"strategy": "vispruner", "keep": 0.25}}'`."""

ENTRY_POINT = "vllm.general_plugins"  # the group in which vLLM looks for `register`, in every one of its processes


def register() -> None:
    """Make the models that seeless serves known to vLLM; a model without "seeless" in its config stays vLLM's own.

    Runs in every process of vLLM, also more than once in one; imports nothing of vLLM's models and no torch.
    """
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from seeless.integrations.vllm.served import PREFIX, SERVED
    from seeless.integrations.vllm.starting import starting_with

    for architecture, where in SERVED.items():
        ModelRegistry.register_model(PREFIX + architecture, where)
        stock = MODELS_CONFIG_MAP.get(architecture)
        if not getattr(stock, "of_seeless", False):
            MODELS_CONFIG_MAP[architecture] = MODELS_CONFIG_MAP[PREFIX + architecture] = starting_with(stock)
