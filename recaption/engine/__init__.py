"""Caption engines: ``vllm`` asks a model, ``server`` one behind an API, ``existing`` the shards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recaption.common.config import check_choice
from recaption.engine.base import CaptionAnswer, CaptionEngine, CaptionOrigin, CaptionRequest
from recaption.engine.existing import ExistingConfig, ExistingEngine, existing_origin
from recaption.engine.server_settings import ServerConfig, check_installed, server_origins
from recaption.engine.vllm import VllmEngine
from recaption.engine.vllm_settings import VllmConfig, vllm_origin
from recaption.images import ImageConfig
from recaption.prompts import PromptConfig

__all__ = [
    "CaptionAnswer",
    "CaptionEngine",
    "CaptionOrigin",
    "CaptionRequest",
    "EngineConfig",
    "build_engine",
    "caption_origins",
]


@dataclass
class EngineConfig:
    #: vllm, server (any OpenAI-compatible API) or existing.
    name: str = "vllm"
    vllm: VllmConfig = field(default_factory=VllmConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    existing: ExistingConfig = field(default_factory=ExistingConfig)

    def __post_init__(self) -> None:
        check_choice("engine.name", self.name, ("vllm", "server", "existing"))


def caption_origins(
    config: EngineConfig, prompts: Mapping[str, PromptConfig], images: ImageConfig
) -> list[CaptionOrigin]:
    """What the engine's captions will be, one origin a prompt, without starting it."""
    if config.name == "existing":
        return [existing_origin(config.existing, images)]
    if config.name == "server":
        return server_origins(config.server, prompts, images)
    return [
        vllm_origin(config.vllm, prompt_id, prompt, images) for prompt_id, prompt in prompts.items()
    ]


def build_engine(
    config: EngineConfig, prompts: Mapping[str, PromptConfig], log: Path | None = None
) -> CaptionEngine:
    """The engine of a run; ``log`` is the file for what is printed by libraries, not by us.

    Raises:
        UserError: the engine's settings are wrong.
    """
    if config.name == "existing":
        return ExistingEngine(config.existing)
    if config.name == "server":
        check_installed()
        from recaption.engine.server import ServerEngine

        return ServerEngine(config.server, prompts)
    return VllmEngine(config.vllm, prompts, log)
