"""The benchmark of scoring, on a small scale: what it tells, and that both ways agree."""

import json

import pytest

from tools.bench_evaluate import main


def test_it_tells_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["num_images=30", "num_texts=60", "embed_dim=16", "num_tokens=4"]
    pairs = ["num_conditioned_images=3", "num_conditioned_texts=5", "num_turns=1"]
    main([*sizes, *pairs, "num_large=40", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["global"]) == {"scores_s", "figures_s", "cpu_s"}
    assert result["conditioned"]["ratio"] > 0  # so small a scale says nothing of speed
    assert 0 < result["large"]["before_gib"] <= result["large"]["peak_gib"]
