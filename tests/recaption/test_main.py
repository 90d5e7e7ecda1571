import json
import subprocess
import sys
from pathlib import Path

import pytest

from recaption.__main__ import COMMANDS
from tests.recaption.shard_files import sample, write_tar


def recaption(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recaption", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_last_line_is_json_when_asked(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", sample("a", 0))
    paths = (f"input={tmp_path}/in", f"output={tmp_path}/out")
    done = recaption("run", "engine.name=existing", *paths, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["num_images"] == 1 and figures["status"] == {"ok": 1}
    assert "images/s" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "input=a", "output=b", "prompt.ids=x"], "did you mean 'prompts'?"),
        (["run", "output=b"], "input has no default"),
        (["run", "input=nowhere", "output=b"], "no such folder"),
        (["pack", "shards=nowhere", "output=b"], "no such folder"),
        (["paint"], "use run or status or retry or verify or report or pack"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments: list[str], message: str) -> None:
    done = recaption(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_help_lists_every_key() -> None:
    listed = recaption("--help").stdout
    assert all(f"\n  {name} " in listed for name in COMMANDS)
    done = recaption("run", "--help")
    assert done.returncode == 0
    assert "engine.vllm.max_in_flight=0" in done.stdout and "Requests held" in done.stdout


def test_captioning_needs_no_torch_but_the_engines() -> None:
    program = "import sys, recaption.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
