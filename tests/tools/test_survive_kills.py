import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pretrain.checkpoint import WEIGHTS, checkpoint_folder
from recaption.common.config import ConfigError
from tests.pretrain.trainruns import TINY, write_training_shards
from tools.survive_kills import KillConfig, different_tensors, main, read_keys


def test_a_killed_training_ends_as_one_that_was_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = write_training_shards(tmp_path / "shards", 40)
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY.replace("data: {", f"data: {{train: {shards}, "))
    output = tmp_path / "runs"
    main(
        [
            *(f"config={config}", f"output={output}", "num_kills=2", "num_steps=40", "--json"),
            *("checkpoint_every=2", "overrides=[engine.ema_decay=0.9]"),
        ]
    )
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["num_kills"] == 2
    assert result["num_while_writing"] >= 1
    assert result["same_keys"] and result["num_different_tensors"] == 0
    assert sorted(read_keys(output / "killed")) == list(range(1, 41))

    # What it would have told of a difference.
    folder = checkpoint_folder(output / "killed", 40)
    tensors = load_file(folder / WEIGHTS)
    tensors["model.image.cls"] += torch.finfo(torch.float32).eps
    save_file(tensors, folder / WEIGHTS)
    settings = KillConfig(str(config), str(output), num_steps=40)
    assert different_tensors(settings, output) == [f"{WEIGHTS}: model.image.cls"]
    (output / "killed" / "keys" / "00000.txt").write_text("1 0001\n")
    assert read_keys(output / "killed") != read_keys(output / "whole")
    with pytest.raises(ConfigError, match="is not empty"):
        main([f"config={config}", f"output={output}"])
