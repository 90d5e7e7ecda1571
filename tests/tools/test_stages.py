import json
import sys
from pathlib import Path

import pytest

from recaption.common.config import UserError
from tools.stages import Stages

PRINT = "print('words'); print('{\"figure\": 3}')"


def test_a_stage_runs_once_and_gives_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (sys.executable, "-c", PRINT, "--json")
    assert Stages(tmp_path).run("one", *command) == {"figure": 3}
    assert "words" in capsys.readouterr().out
    assert Stages(tmp_path).run("one", *command) == {"figure": 3}
    assert "one: done before" in capsys.readouterr().out


def test_another_command_under_the_same_name_is_an_error(tmp_path: Path) -> None:
    Stages(tmp_path).run("one", sys.executable, "-c", "pass")
    with pytest.raises(UserError, match="made with other settings: one was"):
        Stages(tmp_path).run("one", sys.executable, "-c", "1")


def test_a_failed_stage_is_told_and_runs_again(tmp_path: Path) -> None:
    done = tmp_path / "done"
    code = (
        "import pathlib, sys, time; time.sleep(0.2); "
        f"sys.exit(0 if pathlib.Path({str(done)!r}).exists() else 3)"
    )
    command = (sys.executable, "-c", code)
    with pytest.raises(UserError, match="one failed with status 3"):
        Stages(tmp_path).run("one", *command)
    first = json.loads((tmp_path / "stages.json").read_text())["one"]["seconds"]
    done.touch()
    stages = Stages(tmp_path)
    stages.run("one", *command)
    assert stages.seconds["one"] > first
