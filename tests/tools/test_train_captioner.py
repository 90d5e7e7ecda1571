"""The captioner's training, and the trained model in the repository."""

import json
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from recaption.common.config import UserError
from tests.places import CHECKOUT, RECAPTION_PYTHON, needs_recaption_environment
from tools.make_scenes import make_scene
from tools.make_scenes.__main__ import main as make_scenes
from tools.score_captions import colored_things, score_captions
from tools.train_captioner.captions import (
    IGNORED,
    batches_by_length,
    encode_captions,
    pointer_targets,
)
from tools.train_captioner.decoder import decode_greedily
from tools.train_captioner.model import (
    NUM_PATCHES,
    build_model,
    encode_patches,
    state_for_vllm,
)
from tools.train_captioner.optim import Optimizers
from tools.train_captioner.pool import ATTRIBUTES, COLOR_IDS, KIND_IDS, ScenePool, draw_pool
from tools.train_captioner.tokenizer import special_token_ids, train_tokenizer
from tools.train_captioner.tower_lessons import offsets_to_centers
from tools.train_captioner.train import CaptionerTraining, TrainCaptionerConfig

FOLDER = CHECKOUT / "recaption" / "tiny_lvlm"
MAX_BYTES = 12 * 2**20


@pytest.fixture(scope="module")
def pool() -> ScenePool:
    return draw_pool(600, seed=0, split="test", image_size=112, patch_size=14, num_workers=1)


def test_the_pool_is_the_same_for_any_number_of_workers(pool: ScenePool) -> None:
    other = draw_pool(600, seed=0, split="test", image_size=112, patch_size=14, num_workers=2)
    assert np.array_equal(pool.images, other.images)
    assert pool.captions.tolist() == other.captions.tolist()


def test_lessons_tell_what_the_scene_holds(pool: ScenePool) -> None:
    for index in range(50):
        things = make_scene(0, "test", index).layout.things
        taught = {
            tuple(pair) for pair in pool.centers[index].reshape(-1, len(ATTRIBUTES))[:, :2].tolist()
        }
        true = {(KIND_IDS[thing.kind], COLOR_IDS[thing.color]) for thing in things}
        assert taught - {(0, 0)} <= true
        assert len(taught) - 1 >= len(true) - 1  # two middles may share a patch
    offsets, is_known = offsets_to_centers(
        torch.from_numpy(pool.cells[:50]), torch.from_numpy(pool.centers[:50])
    )
    assert is_known.any()
    assert not is_known[torch.from_numpy(pool.cells[:50, :, :, 0]) == 0].any()
    assert offsets[is_known].abs().max() <= 3  # no thing is wider than three patches


def test_the_tokenizer_gives_words_back_and_keeps_them_whole(pool: ScenePool) -> None:
    tokenizer = train_tokenizer(pool.captions.tolist())
    for caption in [*pool.captions[:50].tolist(), "Übrigens: 12 zebras, naïve 東京!"]:
        ids = tokenizer(caption, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == caption
    caption = pool.captions[0]
    num_words = len(caption.replace(".", " .").split())
    assert len(tokenizer(caption, add_special_tokens=False)["input_ids"]) == num_words
    assert sorted(special_token_ids(tokenizer).values()) == [0, 1, 2, 3]


def test_pointers_name_the_thing_that_a_word_is_about(pool: ScenePool) -> None:
    tokenizer = train_tokenizer(pool.captions.tolist())
    caption = "The scene shows a room. A red ball is behind the blue car. A blue car is here."
    captions = encode_captions(tokenizer, [caption])
    centers = torch.zeros((1, NUM_PATCHES, len(ATTRIBUTES)), dtype=torch.uint8)
    order = list(ATTRIBUTES).index("order")
    for patch, kind, color, rank in ((5, "ball", "red", 1), (40, "car", "blue", 2)):
        centers[0, patch, :2] = torch.tensor([KIND_IDS[kind], COLOR_IDS[color]])
        centers[0, patch, order] = rank
    tokens = torch.tensor(captions.tokens)
    places = pointer_targets(tokens, captions, centers)[0].tolist()
    words = [tokenizer.decode([token]).strip() for token in captions.tokens[0]]
    first, second = words.index("ball"), len(words) - 1 - words[::-1].index("car")
    assert set(places[: words.index(".") + 1]) == {IGNORED}
    assert places[first] == 5
    reference = words.index("car")
    assert places[reference - 2 : reference + 1] == [5, 40, 40]
    assert places[second] == 40


def test_batches_hold_captions_of_like_length_and_every_scene_once() -> None:
    lengths = np.random.default_rng(0).integers(20, 200, 640).tolist()
    batches = batches_by_length(lengths, 32, np.random.default_rng(1))
    epoch = [next(batches) for _ in range(20)]
    assert sorted(np.concatenate(epoch).tolist()) == list(range(640))
    spread = np.mean([np.ptp(np.asarray(lengths)[batch]) for batch in epoch])
    assert spread < 40


def test_a_training_learns_and_takes_up_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def training(work: str, **changes: Any) -> CaptionerTraining:
        config = TrainCaptionerConfig(
            output=str(tmp_path / "model"),
            work=str(tmp_path / work),
            num_scenes=128,
            num_eval_scenes=2,
            batch_size=16,
            tower_steps=6,
            caption_steps=4,
            log_every=2,
            checkpoint_every=2,
            num_workers=1,
            use_bfloat16=False,
        )
        return CaptionerTraining(replace(config, **changes))

    whole = training("whole")
    whole.run()
    printed = capsys.readouterr().out.splitlines()
    losses = [
        float(line.split(" offset ")[0].split("cell_color ")[1])
        for line in printed
        if line.startswith("tower")
    ]
    assert losses[-1] < losses[0]

    stopped = training("stopped")
    save = stopped._save_checkpoint

    def save_and_stop(stage: str, step: int, optimizers: list[Optimizers]) -> None:
        save(stage, step, optimizers)
        if (stage, step) == ("captions", 2):
            raise KeyboardInterrupt

    monkeypatch.setattr(stopped, "_save_checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    with pytest.raises(UserError, match="caption_steps"):
        training("stopped", caption_steps=5)
    resumed = training("stopped", log_every=1)
    resumed.run()
    assert "captions: resumed after 2 steps" in capsys.readouterr().out
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_weights_are_named_as_vllm_reads_them() -> None:
    model = build_model(300, {"<pad>": 0, "<s>": 1, "</s>": 2, "<image>": 3})
    names = state_for_vllm(model, torch.float16)
    tower = [name for name in names if "vision_tower" in name]
    assert tower
    assert all("vision_tower.vision_model." in name for name in tower)
    assert all("vision_model.vision_model" not in name for name in tower)


def test_the_models_folder_is_small_and_complete() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= names
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MAX_BYTES
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"]


def test_the_model_in_the_repository_looks(pool: ScenePool) -> None:
    """Opened with transformers, as a check that needs no engine: it names what is there."""
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

    model = LlavaForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32)
    # Transformers 4, of this environment, cannot read the tokenizer's settings of transformers 5.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(FOLDER / "tokenizer.json"),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    with torch.no_grad():
        images = torch.from_numpy(pool.images[:20])
        _, patches = encode_patches(model, images)
    written = decode_greedily(model.eval(), patches, tokenizer)
    score = score_captions(written, [colored_things(text) for text in pool.captions[:20].tolist()])
    assert min(score.precision, score.recall) > 0.7
    assert max(score.control_precision, score.control_recall) < 0.3


@pytest.mark.slow
@needs_recaption_environment
def test_the_documented_command_writes_a_model_that_vllm_serves(tmp_path: Path) -> None:
    model, shards = tmp_path / "model", tmp_path / "shards"
    run = partial(subprocess.run, check=True, capture_output=True, text=True)
    trained = run(
        [
            *(RECAPTION_PYTHON, "-m", "tools.train_captioner", "--json"),
            *(f"output={model}", f"work={tmp_path / 'work'}", "num_scenes=64", "batch_size=16"),
            *("num_eval_scenes=2", "tower_steps=2", "caption_steps=2", "num_workers=1"),
            "use_bfloat16=false",
        ],
        cwd=CHECKOUT,
    )
    assert "precision" in json.loads(trained.stdout.splitlines()[-1])
    assert {path.name for path in model.iterdir()} == {path.name for path in FOLDER.iterdir()} - {
        "README.md"
    }
    make_scenes([f"output={shards}", "num_scenes=4"])
    captioned = run(
        [
            *(RECAPTION_PYTHON, "-m", "recaption", "run", "--json", f"input={shards}"),
            *(f"output={tmp_path / 'tables'}", f"engine.vllm.model={model}"),
            *(
                "prompts.long.sampling.max_tokens=8",
                "filters.keep_cut_off=true",
                "filters.min_words=0",
            ),
        ]
    )
    assert json.loads(captioned.stdout.splitlines()[-1])["num_tokens"] > 0
