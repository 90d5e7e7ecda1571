"""The engine against a real ``vllm serve`` with the tiny model, which is killed half way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recaption.engine.models import TINY_LVLM
from recaption.table import read_table
from tests.daemons import free_ports
from tests.places import RECAPTION_PYTHON, needs_recaption_environment
from tests.recaption.shard_files import sample, write_tar

NUM_IMAGES = 60
#: vLLM starts in half a minute on two idle cores.
SECONDS = 500.0

pytestmark = [pytest.mark.slow, needs_recaption_environment, pytest.mark.timeout(1800)]


@contextmanager
def vllm_serve(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Yields while it is starting; all of its processes are killed in the end."""
    # The command asks for the version of a package `vllm`; the build for CPUs has another name.
    metadata = folder / "names/vllm-0.32.0+cpu.dist-info/METADATA"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    environment = os.environ | {
        "PYTHONPATH": str(folder / "names"),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": "1",
    }
    command = [RECAPTION_PYTHON.parent / "vllm", "serve", TINY_LVLM, "--host", "127.0.0.1"]
    options = ["--port", str(port), "--served-model-name", "tiny_lvlm", "--dtype", "float32"]
    with (folder / "serve.log").open("ab") as log:
        server = subprocess.Popen(
            [*command, *options, "--enforce-eager", "--mm-processor-cache-gb", "0"],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        yield server
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def num_answered(tables: Path) -> int:
    journals = list((tables / "work").glob("*.journal.*"))
    return sum(len(journal.read_text().splitlines()) - 1 for journal in journals)


def test_captions_are_those_of_the_engine_though_the_server_is_killed(tmp_path: Path) -> None:
    members = [member for index in range(NUM_IMAGES) for member in sample(f"k{index}", index)]
    write_tar(tmp_path / "in/a.tar", members)
    asked = [f"input={tmp_path}/in", "prompts.long.sampling.max_tokens=40", "filters.min_words=1"]
    (port,) = free_ports(1)
    server = [f"url=http://127.0.0.1:{port}/v1", "image_format=png", "max_in_flight=4"]
    run = subprocess.Popen(
        # This environment has no vLLM, and waits for a server that is not up yet.
        [
            *(sys.executable, "-m", "recaption", "run", "engine.name=server", *asked),
            *(f"output={tmp_path}/served", *(f"engine.server.{setting}" for setting in server)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with vllm_serve(tmp_path, port) as first:
            deadline = time.monotonic() + SECONDS
            while num_answered(tmp_path / "served") < NUM_IMAGES // 6:
                assert run.poll() is None, run.communicate()[1]
                assert first.poll() is None, (tmp_path / "serve.log").read_text()[-3000:]
                assert time.monotonic() < deadline, (tmp_path / "serve.log").read_text()[-3000:]
                time.sleep(0.01)
        num_before = num_answered(tmp_path / "served")
        with vllm_serve(tmp_path, port):
            _, errors = run.communicate(timeout=SECONDS)
    finally:
        run.kill()
    assert run.returncode == 0, errors
    assert num_before < NUM_IMAGES and "is away" in errors

    direct = subprocess.run(
        [RECAPTION_PYTHON, "-m", "recaption", "run", *asked, f"output={tmp_path}/direct"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert direct.returncode == 0, direct.stderr
    served, expected = (
        read_table(tmp_path / name, "a").to_pylist() for name in ("served", "direct")
    )
    assert len(served) == NUM_IMAGES and all(row["caption"] for row in served)
    same = ("key", "caption", "num_tokens", "finish_reason", "status", "model")
    assert [[row[name] for name in same] for row in served] == [
        [row[name] for name in same] for row in expected
    ]
