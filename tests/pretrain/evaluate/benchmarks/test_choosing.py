"""What a folder remembers of the commands that wrote there."""

from pathlib import Path

from pretrain.evaluate.benchmarks.choosing import CHOSEN, choose, remember
from pretrain.evaluate.config import EvaluateConfig
from recaption.common.config import read_config


def test_variants_that_were_joined_by_commas_are_read_again(tmp_path: Path) -> None:
    """A user's own file may give them so."""
    (tmp_path / CHOSEN).write_text('roots: {refcoco: A}\nvariants: {refcoco: "val,testA"}\n')
    given = EvaluateConfig(checkpoint="c", benchmark="refcoco", root="B", variant="testB")
    remember(given, choose(given), tmp_path)
    again = choose(read_config(EvaluateConfig, tmp_path / CHOSEN))
    assert [one.variant for one in again] == ["val", "testA", "testB"]
