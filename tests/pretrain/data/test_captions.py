import json
from random import Random

import pytest
from safetensors.torch import load_file

from pretrain.data.captions import (
    CaptionsConfig,
    PartsConfig,
    evaluation_parts,
    evaluation_texts,
    join_sentences,
    random_partition,
    sample_texts,
    split_caption,
)
from pretrain.data.tokens import Tokenizer
from tests.places import SHARED

LONG = [f"sentence {n}" for n in range(7)]


def test_split_drops_left_over_pieces() -> None:
    assert split_caption("A dog.\nIt runs. ..</s>On grass") == ["A dog", "It runs", "On grass"]


def test_join_ends_without_a_full_stop() -> None:
    assert join_sentences(["A dog.", "It runs ."]) == "A dog. It runs"


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (1, [1, 1, 1, 1]),
        (4, [1, 1, 1, 1]),
        (6, [2, 2, 1, 1]),
        (12, [3, 3, 3, 3]),
        (15, [3, 3, 3, 6]),
    ],
)
def test_evaluation_parts_are_near_even(count: int, sizes: list[int]) -> None:
    parts = evaluation_parts([f"s{n}" for n in range(count)])
    assert [len(part.split(". ")) for part in parts] == sizes


def test_few_sentences_repeat_cyclically() -> None:
    assert evaluation_parts(["a", "b", "c"]) == ["a", "b", "c", "a"]


@pytest.mark.parametrize("count", range(1, 16))
def test_a_random_partition_keeps_order_and_bounds(count: int) -> None:
    sentences = [str(n) for n in range(count)]
    seen = set()
    for seed in range(50):
        parts = random_partition(sentences, 4, 3, Random(seed))
        assert len(parts) == 4
        assert [s for part in parts for s in part][:count] == sentences
        assert all(1 <= len(part) <= 3 for part in parts[:-1])
        assert len(parts[-1]) <= max(3, count - 9)
        seen.add(tuple(map(len, parts)))
    assert len(seen) > 1 or count <= 5 or count >= 11


def test_parts_come_from_one_long_caption_and_free_texts_from_the_others() -> None:
    captions = {"raw": ["alt text"], "long": LONG, "short": ["a short one"]}
    config = CaptionsConfig(parts=PartsConfig())
    for seed in range(20):
        texts = sample_texts(captions, config, Random(seed))
        assert len(texts) == 8
        assert ". ".join(texts[:4]) == ". ".join(LONG)
        assert set(". ".join(texts[4:]).split(". ")) <= {"alt text", "a short one"}


def test_an_only_caption_gives_its_own_free_texts() -> None:
    config = CaptionsConfig(sources=["long"])
    texts = sample_texts({"raw": ["x"], "long": LONG}, config, Random(0))
    assert set(". ".join(texts[4:]).split(". ")) <= set(LONG)


def test_short_captions_are_pooled() -> None:
    captions = {"raw": ["one"], "short": ["two", "three"]}
    texts = sample_texts(captions, CaptionsConfig(), Random(0))
    assert texts[:3] == ["one", "two", "three"]
    assert len(texts) == 8


def test_whole_is_one_text() -> None:
    config = CaptionsConfig(name="whole", sources=["long"])
    assert sample_texts({"long": LONG}, config, Random(0)) == [". ".join(LONG)]
    assert evaluation_texts({"long": LONG}, config, "") == [". ".join(LONG)]


def test_an_image_without_sentences_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sentences"):
        sample_texts({"raw": []}, CaptionsConfig(), Random(0))


def golden(name: str = "caft/captions.json") -> dict:
    path = SHARED / "golden" / name
    if not path.exists():
        pytest.skip(f"no published samples at {path}")
    return json.loads(path.read_text())


def test_partitions_equal_the_published_ones() -> None:
    for row in golden()["partition_table"]["rows"]:
        sentences = [f"s{n}" for n in range(row["n"])]
        assert evaluation_parts(sentences) == row["fixed"]
        for seed, parts in row["random"].items():
            ours = random_partition(sentences, 4, 3, Random(int(seed)))
            assert [join_sentences(part) for part in ours] == parts


def test_evaluation_tokens_equal_the_published_ones() -> None:
    rows = golden()["eval_rows"]
    tokens = load_file(SHARED / "golden" / "caft" / "captions_tokens.safetensors")
    tokenizer = Tokenizer(77)
    for row, expected in zip(rows, tokens["parts4_token_ids"], strict=True):
        parts = evaluation_parts(split_caption(row["caption"], min_characters=1))
        for part, ids in zip(parts, expected.tolist(), strict=True):
            assert tokenizer.encode(part) == ids[: ids.index(49407) + 1]


def test_training_texts_equal_the_published_ones() -> None:
    rows = golden()["train_samples"]
    assert rows
    for row in rows:
        for sample in row["samples"]:
            rng = Random(sample["python_random_seed"])
            captions = {name.removesuffix("_caption"): s for name, s in row["input"].items()}
            assert sample_texts(captions, CaptionsConfig(), rng) == sample["texts"]


def test_diverse_texts_equal_the_published_ones() -> None:
    samples = golden("flair/sampling_diverse.json")["samples"]
    inputs = {s["input"]: s["input_dict"] for s in samples if "input_dict" in s}
    drawn = [sample for sample in samples if "output" in sample]
    assert len(drawn) == 12
    for sample in drawn:
        rng, config = Random(sample["python_random_seed"]), CaptionsConfig("diverse")
        assert sample_texts(inputs[sample["input"]], config, rng) == sample["output"]


def test_diverse_texts_in_evaluation_are_the_whole_caption() -> None:
    assert evaluation_texts({"long": LONG}, CaptionsConfig("diverse"), "") == [". ".join(LONG)]
