import os
import subprocess
import sys
from pathlib import Path

import pytest

from recaption.engine.vllm_output import EngineLog, root_cause

PREFIX = "(Worker pid=7) ERROR 11-22 16:40:52 [core.py:1512] "
OUTPUT = f"""(EngineCore pid=5) WARNING 11-22 16:36:07 [cpu.py:224] Triton is not installed.
{PREFIX}WorkerProc failed to start.
{PREFIX}Traceback (most recent call last):
{PREFIX}  File "loader.py", line 3, in load
{PREFIX}    raise ValueError("KeyError: no such weight")
{PREFIX}ValueError: KeyError: no such weight
Traceback (most recent call last):
Exception: WorkerProc initialization failed due to an exception in a background process.
RuntimeError: Engine core initialization failed. See root cause above.
"""


def test_the_root_cause_is_the_first_exception() -> None:
    assert root_cause(OUTPUT) == "ValueError: KeyError: no such weight"
    assert root_cause("(EngineCore pid=5) INFO 11-22 16:36:07 [a.py:2] ready\n") is None
    assert root_cause("torch.OutOfMemoryError: CUDA out of memory") is not None


DIVERTED = """
import os, pathlib, sys
from recaption.engine.vllm_output import EngineLog

log = EngineLog(pathlib.Path(sys.argv[1]))
for word in ("first", "second"):
    print("seen")
    with log.divert():
        print("hidden")
        os.system(f"echo {word}Error: in a process >&2")
    assert log.root_cause() == f"{word}Error: in a process", log.root_cause()
"""


def test_output_is_diverted_with_that_of_child_processes(tmp_path: Path) -> None:
    log = tmp_path / "work/engine.log"
    done = subprocess.run(
        [sys.executable, "-c", DIVERTED, str(log)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("seen\nseen\n", "")
    assert log.read_text().count("hidden\n") == 2


def test_without_a_file_everything_stays_on_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    log = EngineLog(None)
    with log.divert():
        os.system("echo seen")
    assert capfd.readouterr().out == "seen\n" and log.root_cause() is None
