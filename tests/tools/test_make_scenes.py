"""Scenes: deterministic, unique, exact, and hard for a bag of words."""

import io
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from tools.make_scenes import make_scene
from tools.make_scenes.__main__ import main
from tools.make_scenes.layout import MIN_VISIBLE
from tools.make_scenes.scene import Scene, bag_of_words, box_of
from tools.make_scenes.world import COLORS, KINDS


def read_shards(folder: Path) -> dict[str, dict[str, bytes]]:
    urls = sorted(map(str, folder.glob("*.tar")))
    return {record["__key__"]: record for record in webdataset.WebDataset(urls, shardshuffle=False)}


def contents(record: dict[str, bytes]) -> dict[str, bytes]:
    return {name: value for name, value in record.items() if not name.startswith("__")}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(seed=3, split="test", index=index) for index in range(400)]


def test_a_scene_depends_on_seed_split_and_index_only(tmp_path: Path) -> None:
    common = ["split=a", "seed=5"]
    main([f"output={tmp_path / 'whole'}", "num_scenes=12", "shard_size=12", *common])
    main([f"output={tmp_path / 'small'}", "num_scenes=6", "start=4", "shard_size=2", *common])
    whole, small = read_shards(tmp_path / "whole"), read_shards(tmp_path / "small")
    assert len(whole) == 12
    assert len(list((tmp_path / "small").glob("*.tar"))) == 3
    assert sorted(small) == [f"a-{index:07d}" for index in range(4, 10)]
    for key, record in small.items():
        assert contents(record) == contents(whole[key])
    other = make_scene(seed=6, split="a", index=4)
    assert other.caption != " ".join(json.loads(whole["a-0000004"]["json"])["sentences"])
    same = make_scene(seed=5, split="a", index=4)
    assert same.caption == " ".join(json.loads(whole["a-0000004"]["json"])["sentences"])


def test_a_stopped_drawing_leaves_whole_shards_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(seed: int, split: str, index: int, *settings: Any) -> Scene:
        if index == 5:
            raise KeyboardInterrupt
        return make_scene(seed, split, index, *settings)

    monkeypatch.setattr("tools.make_scenes.shards.make_scene", draw)
    with pytest.raises(KeyboardInterrupt):
        main([f"output={tmp_path}", "num_scenes=8", "shard_size=4"])
    assert [path.name for path in tmp_path.glob("*.tar")] == ["train-00000.tar"]
    assert len(read_shards(tmp_path)) == 4


def test_shards_hold_image_alt_text_truth_and_masks(tmp_path: Path) -> None:
    main([f"output={tmp_path}", "num_scenes=4", "image_size=128"])
    for record in read_shards(tmp_path).values():
        assert set(contents(record)) == {"jpg", "txt", "json", "masks.png"}
        assert Image.open(io.BytesIO(record["jpg"])).size == (128, 128)
        masks = Image.open(io.BytesIO(record["masks.png"]))
        truth = json.loads(record["json"])
        assert masks.mode == "P"
        assert set(np.unique(np.asarray(masks))) == set(range(len(truth["objects"]) + 1))
        assert len(truth["sentences"]) == len(truth["objects"]) + 1
        assert 0 < len(record["txt"].decode()) < 60


def test_no_two_of_20000_scenes_share_a_caption() -> None:
    captions = [make_scene(seed=0, split="train", index=index).caption for index in range(20_000)]
    assert len(set(captions)) == len(captions)


def test_boxes_and_masks_are_those_of_what_one_sees(scenes: list[Scene]) -> None:
    for scene in scenes[:100]:
        pixels = np.asarray(scene.image()).astype(int)
        for index, thing in enumerate(scene.as_json()["objects"]):
            mask = scene.labels == index + 1
            ys, xs = np.nonzero(mask)
            x0, y0, x1, y1 = (round(value * 112) for value in thing["box"])
            assert (x0, y0, x1, y1) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            # Most of a plain thing without parts has its colour, where the mask says it is.
            if thing["texture"] == "plain" and not thing["parts"]:
                distance = np.abs(pixels[mask] - COLORS[thing["color"]]).max(axis=1)
                assert np.median(distance) <= 12
    assert box_of(np.eye(4, dtype=bool)) == [0, 0, 1, 1]


def test_things_can_be_seen_and_told_apart(scenes: list[Scene]) -> None:
    counts = Counter(len(scene.layout.things) for scene in scenes)
    assert min(counts) == 3
    assert max(counts) == 12
    for scene in scenes:
        objects = scene.as_json()["objects"]
        assert min(thing["visible"] for thing in objects) >= MIN_VISIBLE
        assert len({(thing["name"], thing["color"]) for thing in objects}) == len(objects)
        assert sorted(thing["order"] for thing in objects) == list(range(len(objects)))


def test_relations_hold_in_the_picture(scenes: list[Scene]) -> None:
    seen = Counter()
    for scene in scenes:
        for relation in scene.relations:
            seen[relation.name] += 1
            subject = scene.layout.things[relation.subject]
            other = scene.layout.things[relation.object]
            (x, y), (other_x, other_y) = subject.center, other.center
            match relation.name:
                case "on":
                    assert subject.y + subject.height == other.y
                case "behind":
                    assert relation.subject < relation.object
                case "above":
                    assert y < other_y
                case "below":
                    assert y > other_y
                case "to the left of":
                    assert x < other_x
                case "to the right of":
                    assert x > other_x
    assert set(seen) == {"on", "behind", "above", "below", "to the left of", "to the right of"}


def test_the_description_names_everything_from_left_to_right(scenes: list[Scene]) -> None:
    for scene in scenes:
        objects = sorted(scene.as_json()["objects"], key=lambda thing: thing["order"])
        for thing, sentence in zip(objects, scene.sentences[1:], strict=True):
            assert f"{thing['color']} {thing['name']}" in sentence


def test_a_bag_of_words_cannot_tell_hard_pairs(scenes: list[Scene]) -> None:
    hard = [scene for scene in scenes if scene.hard_pair is not None]
    assert 0.15 < len(hard) / len(scenes) < 0.35
    assert {scene.swap for scene in hard} == {"colors", "places", "parts"}
    for first, second in zip(hard[::2], hard[1::2], strict=True):
        assert first.hard_pair == second.hard_pair
        assert first.caption != second.caption
        assert np.any(np.asarray(first.image()) != np.asarray(second.image()))

    def matches(query: Scene, candidates: list[Scene]) -> list[Scene]:
        """The candidates whose words overlap most with the query's."""
        words = bag_of_words(query.caption)
        overlaps = [(words & bag_of_words(scene.caption)).total() for scene in candidates]
        return [
            scene
            for scene, overlap in zip(candidates, overlaps, strict=True)
            if overlap == max(overlaps)
        ]

    # Two candidates with the same words: whichever it picks, it is right half of the time.
    assert all(len(matches(scene, hard)) >= 2 for scene in hard[:40])
    easy = [scene for scene in scenes if scene.hard_pair is None]
    assert sum(len(matches(scene, easy)) == 1 for scene in easy[:40]) >= 38


def test_without_hard_pairs_there_are_none() -> None:
    made = [make_scene(0, "train", index, hard_pair_share=0.0) for index in range(40)]
    assert all(scene.hard_pair is None for scene in made)


def test_every_kind_can_be_recognised_by_its_outline() -> None:
    """No two kinds have nearly the same silhouette."""
    from tools.make_scenes.sprites import role_map

    outlines = {}
    for kind in KINDS:
        roles = Image.fromarray(role_map(kind, "large", 7, False)).resize(
            (32, 32), Image.Resampling.NEAREST
        )
        outlines[kind] = np.asarray(roles)
    for first, second in itertools.combinations(outlines, 2):
        assert np.mean(outlines[first] != outlines[second]) > 0.08, (first, second)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("start=3", "multiple of shard_size"),
        ("shard_size=3", "even"),
        ("split=v1.5", "letters"),
        ("num_scenes=0", "num_scenes"),
        ("num_scene=4", "num_scenes"),
    ],
)
def test_mistakes_are_told(argument: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        main([f"output={tmp_path}", argument])
