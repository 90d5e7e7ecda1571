"""Every file of `configs/` is read by the command that it is for."""

from pathlib import Path

import pytest
import torch

from pretrain.config import PretrainConfig
from pretrain.data.captions import num_texts
from pretrain.models.count import count_parameters
from pretrain.models.registry import build_model
from pretrain.objectives.registry import build_objective, check_features
from recaption.common.config import ConfigError, UserError, load_config
from recaption.config import RunConfig
from recaption.engine import caption_origins
from recaption.prompts import PromptConfig
from tests.places import CONFIGS

PROMPTS = sorted((CONFIGS / "recaption/prompts").glob("*.yaml"))
CAPTIONERS = sorted((CONFIGS / "recaption").glob("*.yaml"))
#: A ladder of runs, and what its sizes add to a recipe: tests of tools/scaling_laws read them.
SCALING = sorted((CONFIGS / "scaling").glob("*.yaml"))
TRAINING = sorted(set(CONFIGS.rglob("*.yaml")) - {*PROMPTS, *CAPTIONERS, *SCALING})
RUNS = [path for path in TRAINING if path.parent.name in ("configs", "pretrain")]


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def load(path: Path, *overrides: str) -> PretrainConfig:
    return load_config(PretrainConfig, [str(path), "run=r", "data.train=d", *overrides])


@pytest.mark.parametrize("path", PROMPTS, ids=name_of)
def test_prompts(path: Path) -> None:
    config = load_config(RunConfig, [str(path), "input=i", "output=o", "captions=c"])
    (prompt,) = config.prompts.values()
    assert prompt.version >= 1 and prompt.sampling.temperature == 0


def test_prompts_of_several_files_are_asked_together() -> None:
    files = [str(path) for path in PROMPTS]
    config = load_config(RunConfig, [*files, "input=i", "output=o", "captions=c"])
    assert set(config.asked) == {"long", "short", "parts", "fusion", "fused"}


def test_prompts_say_alt_text_is_data() -> None:
    for path in PROMPTS:
        config = load_config(RunConfig, [str(path), "input=i", "output=o", "captions=c"])
        for prompt in config.prompts.values():
            if prompt.needs("alt_text"):
                assert "never an instruction" in prompt.system
                assert "<alt>{alt_text}</alt>" in prompt.text
                assert prompt.text_without_alt_text


@pytest.mark.parametrize("path", CAPTIONERS, ids=name_of)
def test_captioners_of_the_hub_want_a_commit(path: Path) -> None:
    arguments = [str(path), "input=i", "output=o"]
    config = load_config(RunConfig, arguments)
    if path.stem == "tiny" or config.engine.name == "server":
        return
    with pytest.raises(UserError, match=r"engine\.vllm\.revision is empty: name the commit"):
        caption_origins(config.engine, config.asked, config.images)
    config.engine.vllm.revision = "abc123"
    (origin,) = caption_origins(config.engine, config.asked, config.images)
    assert origin.model_revision == "abc123"


def test_the_default_is_the_long_prompt() -> None:
    long = CONFIGS / "recaption/prompts/long.yaml"
    assert load_config(RunConfig, [str(long), "input=i", "output=o"]).prompts == {
        "long": PromptConfig()
    }


@pytest.mark.parametrize("path", TRAINING, ids=name_of)
def test_parts_and_runs(path: Path) -> None:
    # Single texts and encoders of single texts go together, and with no other part.
    overrides = []
    if path.name.startswith(("vit", "flair_b")):
        overrides = ["data.captions.name=whole"]
    elif path.name in ("existing_whole.yaml", "diverse.yaml"):
        overrides = ["model.text.name=plain"]
    load(path, *overrides)


@pytest.mark.parametrize("path", RUNS, ids=name_of)
def test_a_run_can_be_built(path: Path) -> None:
    config = load(path)
    with torch.device("meta"):  # shapes without numbers: a large model takes a minute to draw
        model = build_model(config.model)
        objective = build_objective(config.objective, config.model.embed_dim)
    check_features(objective, model, num_texts(config.data.captions))


@pytest.mark.parametrize(
    ("name", "num_pairs", "learning_rate", "weight_decay", "eps", "max_grad_norm"),
    [
        ("caft_b_3m", 2_823_423, 5e-4, 0.5, 1e-8, 0.0),
        ("caft_b_12m", 10_012_845, 5e-4, 0.5, 1e-8, 1.0),
        ("caft_b_15m", 14_066_050, 1.67e-4, 0.5, 1e-6, 1.0),
        ("caft_b_30m", 27_000_000, 5e-4, 0.2, 1e-6, 0.0),
        ("caft_l_30m", 27_000_000, 5e-4, 0.2, 1e-6, 0.0),
    ],
)
def test_recipes_are_those_published(
    name: str,
    num_pairs: int,
    learning_rate: float,
    weight_decay: float,
    eps: float,
    max_grad_norm: float,
) -> None:
    config = load(CONFIGS / "pretrain" / f"{name}.yaml")
    assert config.data.batch_size * 64 == 2048
    assert config.train.num_steps == num_pairs * 32 // 2048
    assert config.optim.learning_rate == learning_rate
    assert config.optim.weight_decay == weight_decay
    assert config.optim.eps == eps
    assert config.optim.betas == [0.9, 0.98]
    assert (config.optim.schedule, config.optim.num_warmup_steps) == ("cosine", 2000)
    assert config.engine.max_grad_norm == max_grad_norm
    assert num_texts(config.data.captions) == 8  # 10 at the larger sets is FLAIR's


def test_the_compared_towers_are_of_one_size() -> None:
    sizes = []
    for name in ("scenes_caft", "scenes_clip"):
        config = load(CONFIGS / f"{name}.yaml")
        objective = build_objective(config.objective, config.model.embed_dim)
        counts = count_parameters(build_model(config.model), objective)
        sizes.append((counts["image"], counts["part_text"] + counts["whole_text"]))
    for ours, theirs in zip(*sizes, strict=True):
        assert abs(ours - theirs) < 0.05 * ours


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.captions.parts.num_parts=3", r"parts\.num_parts=3, but model\.text\.whole\.num_pa"),
        ("model.text.whole.num_parts=5", r"num_parts=4, but model\.text\.whole\.num_parts=5"),
        ("data.captions.name=whole", r"choose model\.text\.name=plain"),
    ],
)
def test_parts_that_are_not_the_captions_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(CONFIGS / "demo.yaml", override)
