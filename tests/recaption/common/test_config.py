from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import MISSING

from recaption.common.config import (
    ConfigError,
    UserError,
    check_unchanged,
    format_help,
    from_dict,
    load_config,
    run_command,
    to_dict,
    write_config,
)


@dataclass
class OptimConfig:
    lr: float = 1e-3  # peak learning rate
    # the first steps, in which
    # the rate rises
    num_warmup_steps: int = 10


@dataclass
class RunConfig:
    output: str = MISSING
    optim: OptimConfig = field(default_factory=OptimConfig)
    extra: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    limit: int | None = None


def test_overrides_win_over_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("output: here\noptim: {lr: 0.5}\nextra: {any: {thing: 1}}\n")
    config = load_config(RunConfig, [str(tmp_path / "run.yaml"), "optim.lr=0.25", "tags=[a,b]"])
    assert config == RunConfig("here", OptimConfig(0.25), {"any": {"thing": 1}}, ["a", "b"])
    assert isinstance(config, RunConfig)
    assert isinstance(config.optim, OptimConfig)


def test_includes_come_before_the_files_own_keys(tmp_path: Path) -> None:
    configs = tmp_path / "configs"
    (configs / "part").mkdir(parents=True)
    (configs / "whole").mkdir()
    (configs / "part" / "fast.yaml").write_text("optim: {lr: 1.0, num_warmup_steps: 3}\n")
    (configs / "whole" / "run.yaml").write_text(
        "include: [part/fast.yaml]\noutput: x\noptim: {lr: 2.0}\n"
    )
    config = load_config(RunConfig, [str(configs / "whole" / "run.yaml")])
    assert config.optim == OptimConfig(2.0, 3)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("optim.lrr=1", ["optim.lrr", "optim.lr"]),
        ("num_warmup_step=1", ["num_warmup_step", "optim.num_warmup_steps"]),
        ("optim.lr=fast", ["optim.lr", "fast"]),
        ("absent.yaml", ["absent.yaml"]),
        ("optim=3", ["optim"]),
        ("tags=one", ["tags: a list is needed: [VALUE, ...]"]),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    argument: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str]) -> None:
        load_config(RunConfig, argv)

    assert run_command(main, ["output=x", argument]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert all(word in message for word in words), message


def test_a_misspelled_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("optim: {learning_rate: 1}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml.*optim\.learning_rate"):
        load_config(RunConfig, ["output=x", str(tmp_path / "run.yaml")])


def test_a_required_key_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="output"):
        load_config(RunConfig, [])


def test_a_file_that_includes_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("include: [a.yaml]\n")
    with pytest.raises(ConfigError, match="includes itself"):
        load_config(RunConfig, [str(tmp_path / "a.yaml")])


def test_the_whole_config_survives_a_round_trip(tmp_path: Path) -> None:
    config = load_config(RunConfig, ["output=x", "extra.a=1", "limit=4"])
    write_config(config, tmp_path / "config.yaml")
    assert load_config(RunConfig, [str(tmp_path / "config.yaml")]) == config
    assert from_dict(RunConfig, to_dict(config), "memory") == config


def test_help_shows_keys_defaults_and_comments() -> None:
    text = format_help(RunConfig)
    assert "optim.lr=0.001" in text
    assert "peak learning rate" in text
    assert "the first steps, in which the rate rises" in text


@pytest.mark.parametrize("include", ["part.yaml", "{a: part.yaml}", "[1]"])
def test_an_include_that_is_no_list_of_paths_is_an_error(tmp_path: Path, include: str) -> None:
    (tmp_path / "a.yaml").write_text(f"include: {include}\n")
    with pytest.raises(ConfigError, match=r"include must be a list of paths, as in \["):
        load_config(RunConfig, [str(tmp_path / "a.yaml")])


def test_a_file_that_the_system_refuses_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str]) -> None:
        (tmp_path / "absent" / "file").write_text("")

    assert run_command(main, []) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/absent/file: No such file or directory\n"


def test_work_goes_on_only_as_it_was_begun(tmp_path: Path) -> None:
    begun = load_config(RunConfig, ["output=x", "optim.lr=0.5"])
    write_config(begun, tmp_path / "config.yaml")
    now = load_config(RunConfig, ["output=y", "optim.lr=0.5"])
    check_unchanged(now, tmp_path / "config.yaml", ["output"])
    with pytest.raises(UserError, match=rf"{tmp_path} was begun with output=x, not y: use another"):
        check_unchanged(now, tmp_path / "config.yaml", [])
    now.optim.lr = 1.0
    with pytest.raises(UserError, match=r"begun with optim\.lr=0\.5, not 1\.0"):
        check_unchanged(now, tmp_path / "config.yaml", ["output"])
    check_unchanged(now, tmp_path / "config.yaml", ["output", "optim"])


@dataclass
class SlowRunConfig:
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-5))
    run: RunConfig = field(default_factory=lambda: RunConfig(optim=OptimConfig(lr=2.0)))


def test_help_tells_the_defaults_that_a_class_gives_to_its_parts() -> None:
    keys = {line.split()[0] for line in format_help(SlowRunConfig).splitlines()}
    assert {"optim.lr=1.0e-05", "run.optim.lr=2.0"} <= keys
    assert {"optim.num_warmup_steps=10", "run.output=<required>"} <= keys


@dataclass
class LongRunConfig(RunConfig):
    num_epochs: int = 3  # passes over the set


def test_help_of_a_class_tells_what_its_base_told() -> None:
    text = format_help(LongRunConfig)
    assert "output=<required>" in text
    assert "optim.lr=0.001" in text and "peak learning rate" in text
    assert "num_epochs=3" in text and "passes over the set" in text


def test_paths_below_the_home_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell has expanded what stands behind `=` or in a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text("output: ~/run\nextra: {root: ~/coco, all: [~/a, b~/c]}\n")
    config = load_config(RunConfig, [str(tmp_path / "run.yaml"), "tags=[~/x,'a,~/y,~z/~/w']"])
    assert config.output == f"{tmp_path}/run"
    assert config.extra == {"root": f"{tmp_path}/coco", "all": [f"{tmp_path}/a", "b~/c"]}
    assert config.tags == [f"{tmp_path}/x", f"a,{tmp_path}/y,~z/~/w"]
    assert load_config(RunConfig, ["output=about ~/x"]).output == "about ~/x"
