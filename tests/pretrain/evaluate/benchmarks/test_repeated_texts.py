"""A text that several images have: whatever batches it would stand in, it ties with itself."""

from collections.abc import Sequence
from pathlib import Path

from pretrain.evaluate.benchmarks.base import Coverage, Picture, RetrievalSet
from pretrain.evaluate.retrieval_task import evaluate, score_all
from pretrain.models.features import TextFeatures
from tests.pretrain.evaluate.benchmarks.colours import ColourEncoders, write_picture


class RoundingEncoders(ColourEncoders):
    """Rounds by where a text stands, as encoders do in batches of other lengths."""

    def __init__(self) -> None:
        self.num_texts = 0

    def encode_captions(self, captions: Sequence[str]) -> TextFeatures:
        features = self.encode_sentences(captions)
        for row in features:
            self.num_texts += 1
            row += self.num_texts
        return TextFeatures(features)


def test_it_is_encoded_and_scored_once(tmp_path: Path) -> None:
    texts = ["red", "green", "red", "blue", "red"]
    for number, text in enumerate(texts):
        write_picture(tmp_path / f"{number}.png", text)
    images = [Picture(tmp_path, f"{number}.png") for number in range(5)]
    data = RetrievalSet(images, texts, range(5), Coverage(5))
    encoders = RoundingEncoders()
    (scores,) = score_all(data, encoders, batch_size=2).values()
    assert encoders.num_texts == 3
    assert scores.shape == (5, 5)
    assert (scores[:, 0] == scores[:, 2]).all() and (scores[:, 0] == scores[:, 4]).all()
    assert scores.argmax(dim=1).tolist() == [0, 1, 0, 3, 0]
    figures = evaluate(data, encoders, batch_size=2)
    # Two of the three alike are in the way of each.
    assert figures["columns"]["score"]["image_to_text"]["r1"] == 2 / 5
    assert figures["num_texts"] == 5
