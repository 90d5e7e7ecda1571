from pathlib import Path

import pytest

from recaption.common.config import load_config
from recaption.config import RunConfig
from recaption.prompts import PromptConfig

FOLDER = Path(__file__).parents[2] / "configs/recaption/prompts"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_prompt_files_are_named_by_their_id(path: Path) -> None:
    config = load_config(RunConfig, [str(path), "input=a", "output=b"])
    assert config.prompt.id == path.stem
    assert config.prompt.text


def test_the_default_is_the_long_prompt() -> None:
    config = load_config(RunConfig, [str(FOLDER / "long.yaml"), "input=a", "output=b"])
    assert config.prompt == PromptConfig()
