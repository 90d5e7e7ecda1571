"""Prompts are read as sentences: without their full stop, and not cut in two at another."""

from pathlib import Path

import torch

from pretrain.evaluate.canopy_encoders import CanopyEncoders
from pretrain.evaluate.prompts import class_sentences, class_texts
from tests.pretrain.evaluate.benchmarks.models import canopy_encoders

PLAIN, STOPPED = ["a photo of a {}", "the {}"], ["a photo of a {}.", "the {}."]
NAMES = ["cat", "St. Bernard"]


def encoders_of(folder: Path) -> CanopyEncoders:
    encoders = canopy_encoders(folder)
    assert encoders.inference.config.data.captions.name == "parts"
    return encoders


def test_a_full_stop_changes_no_class(tmp_path: Path) -> None:
    encoders = encoders_of(tmp_path)
    for classes in (class_sentences, lambda *a: class_texts(*a).parts):
        with_stop, without = (classes(encoders, NAMES, t, 8) for t in (STOPPED, PLAIN))
        torch.testing.assert_close(with_stop, without, rtol=0, atol=0)


def test_a_name_with_a_full_stop_is_one_text(tmp_path: Path) -> None:
    encoders = encoders_of(tmp_path)
    parts = encoders.encode_prompts(["a photo of a St. Bernard."]).parts
    assert parts is not None
    torch.testing.assert_close(parts, parts[:, :1].expand_as(parts))
    sentence = encoders.encode_sentences(["a photo of a St. Bernard"])
    torch.testing.assert_close(parts[0, :1], sentence)
