"""The benchmark of encoding, on a small scale: what it tells, and that both ways agree."""

import json
from pathlib import Path

import pytest

from recaption.common.config import UserError
from tests.pretrain.evaluate.benchmarks.layouts import write_urban1k
from tools.bench_encoding import main

_SMALL = ["configs/model/caft_ti.yaml", "num_turns=1", "batch_size=2"]


def test_it_tells_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    main([*_SMALL, "num_images=5", "image_size=112", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["images"]) == {"number", "per_s", "plain_per_s", "ratio", "waited"}
    assert 0 <= result["images"]["waited"] < 1
    assert (result["images"]["number"], result["texts"]["number"]) == (5, 5)


def test_it_takes_a_benchmark_in_its_layout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_urban1k(tmp_path / "urban1k")
    given = ["benchmark=urban1k", f"root={root}", "allow_missing=true", "num_images=2"]
    main([*_SMALL, *given, "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["images"]["number"], result["texts"]["number"]) == (2, 2)
    with pytest.raises(UserError, match="benchmark= and root= together"):
        main(["benchmark=urban1k"])
