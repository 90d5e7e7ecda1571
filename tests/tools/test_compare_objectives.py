"""The comparison runs real trainings and evaluations, and goes on where it was interrupted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pretrain.trainruns import TINY, write_training_shards

CLIP = (
    TINY.replace("objective: {name: caft, caft: {loss_form: softmax}}", "objective: {name: clip}")
    .replace(
        "  image:\n", "  image:\n    name: vit\n    vit: {width: 24, num_heads: 2, depth: 1}\n"
    )
    .replace("  text:\n", "  text:\n    name: plain\n")
    .replace("data: {", "data: {captions: {name: whole}, ")
)


def compare(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "tools.compare_objectives", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    ).stdout


@pytest.mark.slow
def test_a_comparison_has_equal_steps_and_equal_time_and_can_go_on(tmp_path: Path) -> None:
    shards = write_training_shards(tmp_path / "shards", 16)
    (tmp_path / "caft.yaml").write_text(TINY)
    (tmp_path / "clip.yaml").write_text(CLIP)
    arguments = (
        *(f"train={shards}", f"val={shards}", f"output={tmp_path / 'runs'}", "num_samples=16"),
        *(f"caft={tmp_path / 'caft.yaml'}", f"clip={tmp_path / 'clip.yaml'}"),
        *("num_steps=6", "seeds=[3]", "num_ranks=1", "overrides=[train.log_every=2]"),
    )
    output = compare(*arguments)
    comparison = json.loads(output.splitlines()[-1])
    caft, clip, clip_longer = comparison["runs"]
    assert [run["name"] for run in comparison["runs"]] == ["caft", "clip", "clip, equal time"]
    assert caft["num_steps"] == clip["num_steps"] == 6
    expected = round(6 * caft["step_seconds"] / clip["step_seconds"])
    assert clip_longer["num_steps"] == expected
    assert all(run["chance_r1"] == 1 / 16 and run["seed"] == 3 for run in comparison["runs"])
    assert caft["by_score"].keys() == {"blended", "whole", "local"}
    assert caft["t2i_r1"] == caft["by_score"]["blended"]["t2i_r1"]

    (tmp_path / "runs" / "comparison.json").unlink()
    again = compare(*arguments)
    assert json.loads(again.splitlines()[-1]) == comparison
    assert again.count("done before") == 6
