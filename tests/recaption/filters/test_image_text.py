import subprocess
import sys
from pathlib import Path

import pytest

from recaption.common.errors import UserError
from recaption.filters import ImageTextConfig, ImageTextScorer
from tests.recaption.shard_files import picture

open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch")
CAPTIONS = [
    "A red ball.",
    "A long caption. " * 40,
    "Blocks of colour.",
    "Three people on a bench.",
    "A street at night.",
]
IMAGES = [picture(seed, (200 + seed, 160)) for seed in range(len(CAPTIONS))]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.recaption.tiny_clip import write_tiny_clip

    return write_tiny_clip(tmp_path_factory.mktemp("weights"))


def scorer(weights: Path, **settings: object) -> ImageTextScorer:
    return ImageTextScorer(ImageTextConfig("test-tiny-clip", str(weights), **settings))  # type: ignore[arg-type]


def direct_scores(weights: Path) -> list[float]:
    """What a user of open_clip would write."""
    import torch
    from safetensors.torch import load_file

    model, _, preprocess = open_clip.create_model_and_transforms("test-tiny-clip")
    model.load_state_dict(load_file(weights))
    model.eval()
    tokenizer = open_clip.get_tokenizer("test-tiny-clip")
    scores = []
    for image, caption in zip(IMAGES, CAPTIONS, strict=True):
        with torch.no_grad():
            seen = model.encode_image(preprocess(image)[None])[0]
            read = model.encode_text(tokenizer([caption]))[0]
        scores.append(torch.cosine_similarity(seen, read, dim=0).item())
    return scores


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_scores_are_those_of_open_clip(weights: Path, batch_size: int) -> None:
    scores = scorer(weights, batch_size=batch_size).score(IMAGES, CAPTIONS)
    assert scores == pytest.approx(direct_scores(weights), abs=6e-4)
    assert len(set(scores)) > 1
    assert scorer(weights).score([], []) == []


def test_weights_of_torch_are_read_without_pickled_code(weights: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    plain = tmp_path / "tiny.pt"
    torch.save({"state_dict": load_file(weights)}, plain)
    assert scorer(plain).score(IMAGES, CAPTIONS) == scorer(weights).score(IMAGES, CAPTIONS)
    poisoned = tmp_path / "poisoned.pt"
    torch.save({"state_dict": load_file(weights), "extra": Path("x")}, poisoned)
    with pytest.raises(UserError, match=r"poisoned\.pt cannot be loaded"):
        scorer(poisoned)


def test_small_scores_are_rejected(weights: Path) -> None:
    judge = scorer(weights, min_score=0.25)
    assert judge.reject_reason(0.25) is None
    assert judge.reject_reason(0.249) == "image-text: 0.249 by test-tiny-clip, below 0.25"


def test_what_cannot_be_loaded_is_one_line(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        scorer(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="open_clip knows"):
        ImageTextScorer(ImageTextConfig("ViT-Z-1", str(weights)))
    with pytest.raises(UserError, match="cannot be loaded as ViT-B-32"):
        ImageTextScorer(ImageTextConfig("ViT-B-32", str(weights)))


def test_nothing_imports_torch_until_a_score_is_wanted() -> None:
    script = (
        "import sys; from recaption.filters import CaptionFilter, FilterConfig, near_duplicates;"
        "CaptionFilter(FilterConfig()).judge('A dog on a mat.', 'stop');"
        "print(sorted({'torch', 'open_clip'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert process.stdout.strip() == b"[]"
