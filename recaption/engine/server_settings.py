"""The settings of ``engine.name=server``; apart from the engine, which needs a package."""

import asyncio
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from recaption.common.config import ConfigError, UserError, check_at_least, check_choice
from recaption.engine.base import CaptionOrigin, hash_settings
from recaption.engine.encoding import ImageEncoding
from recaption.images import ImageConfig
from recaption.prompts import PromptConfig

#: Connections that the client library opens to one server.
MAX_CONNECTIONS = 1000


@dataclass
class ServerConfig:
    #: Of an OpenAI-compatible API, /v1 included; several as [URL, URL], which share the requests.
    url: Any = "http://127.0.0.1:8000/v1"
    #: As the server names it; empty: the only one that it lists.
    model: str = ""
    #: Of the model, as you know it: a server does not tell. Stands in the tables.
    revision: str = ""
    #: Name of the environment variable that holds the API key; empty: none is needed.
    api_key_variable: str = ""
    #: png, or jpeg, which is smaller on the way and not exactly what was decoded.
    image_format: str = "jpeg"
    #: Of a JPEG, 1 to 100.
    image_quality: int = 95
    #: Requests under way at one time, all servers together.
    max_in_flight: int = 64
    #: Seconds for one answer.
    timeout: float = 300.0
    #: Times that a request is sent, before it becomes a failed row.
    num_tries: int = 8
    #: Seconds before the second time; each further wait is twice as long, up to a minute.
    backoff: float = 1.0
    #: Seconds without any server that can be reached after which the run ends. A server that is
    #: started again within them costs nothing.
    patience: float = 900.0

    def __post_init__(self) -> None:
        check_choice("engine.server.image_format", self.image_format, ("png", "jpeg"))
        check_at_least(1, {f"engine.server.{name}": getattr(self, name) for name in _POSITIVE})
        check_at_least(0, {"engine.server.backoff": self.backoff})
        if self.image_quality > 100:
            raise ConfigError(f"engine.server.image_quality={self.image_quality}: at most 100")
        for name in ("timeout", "patience"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"engine.server.{name}: it must be more than 0 seconds")
        if not self.urls:
            raise ConfigError("engine.server.url: name a server")
        if self.max_in_flight > MAX_CONNECTIONS * len(self.urls):
            raise ConfigError(
                f"engine.server.max_in_flight={self.max_in_flight}: at most {MAX_CONNECTIONS} for "
                "each url"
            )
        for url in self.urls:
            _check_url(url)
        # The value is not shown: it may be the key itself.
        if self.api_key_variable and not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_variable):
            raise ConfigError(
                "engine.server.api_key_variable: it takes the name of an environment variable, "
                "never the key itself"
            )

    @property
    def urls(self) -> list[str]:
        return [self.url] if isinstance(self.url, str) else list(self.url or [])

    @property
    def encoding(self) -> ImageEncoding:
        return ImageEncoding(self.image_format, self.image_quality)


_POSITIVE = ("image_quality", "max_in_flight", "num_tries")


def _check_url(url: Any) -> None:
    """Raises: ConfigError: it is no URL of a server, or holds a password."""
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"engine.server.url: {url!r} is no URL such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise ConfigError(
            "engine.server.url: take user and password out, tables and logs would show them; a key "
            "goes by engine.server.api_key_variable"
        )


def check_installed() -> None:
    if importlib.util.find_spec("openai") is None:
        raise UserError(
            "engine.name=server needs the package openai: pip install -e '.[recaption-server]'"
        )


def api_key(config: ServerConfig) -> str:
    """Raises: UserError: the variable is not set."""
    if not config.api_key_variable:
        return ""
    key = os.environ.get(config.api_key_variable, "").strip()
    if not key:
        raise UserError(
            "engine.server.api_key_variable names no variable that is set: export it, with the key "
            "as its value"
        )
    return key


def server_origins(
    config: ServerConfig, prompts: Mapping[str, PromptConfig], images: ImageConfig
) -> list[CaptionOrigin]:
    """The server is asked only for a model that is not named.

    Raises:
        UserError: no server is there, or it has several models.
    """
    model = config.model or _ask_for_model(config)
    origins = []
    for prompt_id, prompt in prompts.items():
        sampling_hash = hash_settings(
            model=model,
            revision=config.revision,
            prompt=asdict(prompt),
            images=asdict(images),
            encoding=asdict(config.encoding) if config.image_format == "jpeg" else "png",
        )
        origins.append(CaptionOrigin(prompt_id, model, config.revision, sampling_hash))
    return origins


def _ask_for_model(config: ServerConfig) -> str:
    check_installed()
    from recaption.engine.endpoints import Endpoints

    async def ask() -> str:
        async with Endpoints(config) as endpoints:
            return endpoints.model

    return asyncio.run(ask())
