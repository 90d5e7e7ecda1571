"""Starting vLLM's engine in processes of its own, and ending them."""

import gc
import re
from pathlib import Path
from typing import Any

from recaption.common.config import UserError
from recaption.engine.cores import Cores
from recaption.engine.vllm_output import EngineLog
from recaption.engine.vllm_processes import EngineProcesses, interruptible
from recaption.engine.vllm_settings import VllmConfig, engine_arguments, runs_on_cpu

#: Seconds that the engine has for ending by itself.
SHUTDOWN_TIMEOUT = 3.0
#: How vLLM says that a process was killed: `Failed core proc(s): {'EngineCore': -9}`, or `{}` where
#: it looks between a process's end and its exit status.
_EXIT_BY_SIGNAL = re.compile(r"Failed core proc\(s\): (\{\}|.*: -\d+)")


class KilledAtStart(UserError):
    """Something killed the engine's process, such as the kernel for want of memory."""


class VllmStarter:
    """Starts one engine after the other, with the same settings.

    Args:
        model: a folder, or a name on the hub.
        log: where what vLLM prints goes.
    """

    def __init__(self, config: VllmConfig, model: Path | str, log: EngineLog) -> None:
        self.processes = EngineProcesses()
        self._config, self._model, self._log = config, model, log
        self._on_cpu = runs_on_cpu()
        self._cores = Cores()

    def start(self) -> Any:
        """vLLM's `AsyncLLM`. Keeps the event loop waiting: nothing else prints or starts processes
        meanwhile.

        Raises:
            KilledAtStart: another start may do better.
            UserError: it cannot be loaded, and settings are why.
        """
        try:
            self._cores.take_back()
            with self._log.divert(), self.processes.watch(), interruptible():
                from vllm import AsyncEngineArgs
                from vllm.usage.usage_lib import UsageContext
                from vllm.v1.engine.async_llm import AsyncLLM

                arguments = engine_arguments(self._config, str(self._model), self._on_cpu)
                # As for `vllm.LLM`: its batches are larger than those of a server, which answers
                # each single request sooner.
                llm = AsyncLLM.from_engine_args(
                    AsyncEngineArgs(**arguments), usage_context=UsageContext.LLM_CLASS
                )
            if self._on_cpu:
                self._cores.leave(self.processes.all)
            # What was imported and loaded stays: it need not be looked through again and again.
            gc.collect()
            gc.freeze()
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            self.processes.kill()
            # What fails in another process is told by its output only.
            cause = self._log.root_cause() if isinstance(error, RuntimeError) else None
            was_killed = cause is None and _EXIT_BY_SIGNAL.search(str(error)) is not None
            raise (KilledAtStart if was_killed else UserError)(
                f"vLLM cannot load {self._config.model}: {cause or one_line(error)}{self._log}"
            ) from error
        return llm

    def stop(self, llm: Any) -> None:
        """Ends an engine and all of its processes; one that has died is not waited for."""
        with self._log.divert():
            if llm.errored:
                self.processes.kill()
            llm.shutdown(timeout=SHUTDOWN_TIMEOUT)
            self.processes.kill()


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
