"""What happens when vLLM makes up its configuration: checks, and the model class of seeless in place of vLLM's."""

from typing import Any

from seeless.errors import BudgetError
from seeless.families import family_of
from seeless.integrations.vllm.errors import NotServed
from seeless.integrations.vllm.served import KEY, PREFIX, strategy_of

ALMOST_NOTHING = 1e-18  # a share that rounds to no token, but switches on positions that the model computes itself


def starting_with(stock: type | None) -> type:
    """vLLM's hook for the configs of one architecture, after the one that vLLM itself has."""
    from vllm.model_executor.models.config import VerifyAndUpdateConfig

    before: Any = stock or VerifyAndUpdateConfig

    class Starting(VerifyAndUpdateConfig):
        of_seeless = True

        @staticmethod
        def verify_and_update_model_config(model_config: Any) -> None:
            before.verify_and_update_model_config(model_config)
            if getattr(model_config.hf_config, KEY, None) is not None:
                take_over(model_config)

        @staticmethod
        def verify_and_update_config(vllm_config: Any) -> None:
            before.verify_and_update_config(vllm_config)
            if getattr(vllm_config.model_config.hf_config, KEY, None) is not None:
                check(vllm_config)

    return Starting


def take_over(model_config: Any) -> None:
    """Let the model class of seeless run the model.

    Raises:
        BudgetError, UnknownStrategy, NotServed: what is asked for cannot be served.
    """
    hf_config, own = model_config.hf_config, model_config.multimodal_config
    mrope = family_of(hf_config.model_type).mrope
    strategy_of(getattr(hf_config, KEY), mrope)
    if KEY in (own.mm_processor_kwargs or {}):
        raise BudgetError(
            f'--mm-processor-kwargs has "{KEY}", which belongs to a request; give the server\'s own strategy in '
            "--hf-overrides"
        )
    if own.enable_mm_embeds:
        raise NotServed(
            "--enable-mm-embeds takes pictures that somebody else has encoded, of which no token can be dropped by "
            "what the tower shows; leave it out"
        )
    if own.is_multimodal_pruning_enabled():
        raise BudgetError(
            f'--video-pruning-rate is vLLM\'s own pruning of videos; leave it out where "{KEY}" prunes them'
        )
    if mrope:
        own.video_pruning_rate = ALMOST_NOTHING
    hf_config.architectures = [PREFIX + name.removeprefix(PREFIX) for name in hf_config.architectures]
    model_config._model_info, model_config._architecture = model_config.registry.inspect_model_cls(
        hf_config.architectures, model_config
    )


def check(vllm_config: Any) -> None:
    """Refuse what would go round the place where tokens are dropped.

    Raises:
        NotServed: there is such an option.
    """
    compiling, lora = vllm_config.compilation_config, vllm_config.lora_config
    if compiling.cudagraph_mm_encoder or compiling.compile_mm_encoder:
        raise NotServed(
            "cudagraph_mm_encoder and compile_mm_encoder run the vision tower where what it shows cannot be read; "
            "leave them out of --compilation-config"
        )
    if lora is not None and lora.enable_tower_connector_lora:
        raise NotServed(
            "--enable-tower-connector-lora counts a picture's tokens by those of its prompt, which are fewer here; "
            "leave it out (LoRA of the decoder works)"
        )
