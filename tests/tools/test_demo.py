"""The whole river, small: every stage by its real command, on vLLM and two DeepSpeed ranks."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import pretrain
from recaption.table import read_table
from tests.places import CHECKOUT, needs_recaption_environment

SUMMARY = {
    *("seconds", "num_images", "t2i_r1", "i2t_r1", "chance_r1", "pointing", "pointing_chance"),
    *("captioner_precision", "captioner_recall", "captioner_control_recall", "report", "release"),
}


def run_demo(folder: Path) -> tuple[dict, str]:
    command = [
        *(sys.executable, "-m", "tools.demo", f"output={folder}", "--json"),
        *("num_train=48", "num_test=16"),
        "train=[data.batch_size=8,train.num_steps=4,optim.num_warmup_steps=2]",
    ]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=800)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1]), result.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs_recaption_environment
def test_the_whole_river(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    summary, printed = run_demo(folder)
    assert summary.keys() >= SUMMARY
    assert summary["num_images"] == 64
    assert summary["chance_r1"] == 1 / 16
    assert summary == json.loads((folder / "summary.json").read_text())

    tables = sorted((folder / "captions").glob("*.parquet"))
    assert sum(read_table(table.parent, table.stem).num_rows for table in tables) == 64
    # The captioner looks: what it names is there, and is not in another picture.
    assert summary["captioner_recall"] > 3 * summary["captioner_control_recall"]

    assert "196 segments" in Path(summary["report"]).read_text()
    model = pretrain.load(summary["release"], verify=True)
    picture = Image.new("RGB", (112, 112), (200, 30, 30))
    assert model.similarity([picture], ["A red wall. Nothing else."]).shape == (1, 1)

    # The three lines that it ends with are what one can type.
    lines = [line.strip() for line in printed.splitlines()]
    first = lines.index("import pretrain")
    example = "\n".join(lines[first : first + 3])
    result = subprocess.run(
        [sys.executable, "-c", example], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert re.fullmatch(r"tensor\(\[\[-?\d+\.\d+\]\]\)", result.stdout.strip()), result

    # As if it had been interrupted at its end: what is done is not done again.
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "captions")
    again, output = run_demo(folder)
    assert again == summary
    assert output.count("done before") == len(summary["stages"])
