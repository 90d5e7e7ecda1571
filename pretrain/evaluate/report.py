"""`report.html`: what was learnt, to look at. One file, nothing fetched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import Tensor

from pretrain.data.captions import join_sentences
from pretrain.data.transforms import evaluation_transform, normalise
from pretrain.evaluate.curves import draw_curves
from pretrain.evaluate.encode import encode_images
from pretrain.evaluate.examples import Example, read_pictures
from pretrain.evaluate.localisation import MapScore
from pretrain.evaluate.looks import level_panels, map_uri, picture_uri
from pretrain.evaluate.measure import Measurement, Query, encode_queries, query_maps
from pretrain.evaluate.retrieval import text_to_image_ranks
from pretrain.inference import InferenceModel
from pretrain.models.count import num_parameters
from pretrain.models.features import ImageFeatures
from recaption.common.files import atomic_write

REPORT = Path("report") / "report.html"
_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_NUM_CANDIDATES = 5  # images shown for a text
_NUM_MAPS = 3  # sentences shown on one image


@dataclass(frozen=True)
class Evaluated:
    """All that a report tells of: a model, what it was evaluated on, and what came out."""

    inference: InferenceModel
    folder: Path
    examples: list[Example]
    queries: list[list[Query]]
    measurement: Measurement
    result: dict[str, Any]


def write_report(evaluated: Evaluated, metrics: Path, output: Path, num_pictures: int) -> Path:
    """Writes `output`/report/report.html and returns its path.

    Sections without anything to show are left out: curves without `metrics`, segments of a model
    that has none, maps on a set without boxes.
    """
    shown = choose_shown(evaluated, num_pictures)
    pixels = _read_pixels(evaluated, shown)
    encoded = {position: _encode(evaluated, pixels[position]) for position in shown.looked_into}
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(_TEMPLATE.parent),
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    page = environment.get_template(_TEMPLATE.name).render(
        result=evaluated.result,
        config=evaluated.inference.config,
        num_parameters=_count_towers(evaluated.inference),
        curves=draw_curves(metrics),
        found=[_retrieved(evaluated, text, pixels) for text in shown.found],
        lost=[_retrieved(evaluated, text, pixels) for text in shown.lost],
        samples=[
            {
                "image": picture_uri(pixels[position]),
                "sentences": evaluated.examples[position].sentences,
            }
            for position in shown.samples
        ],
        hierarchies=[
            levels
            for position in shown.samples
            if (levels := level_panels(pixels[position], encoded[position].hierarchy))
        ],
        first_maps=_maps(evaluated, shown.first_maps, pixels, encoded),
        clearest_maps=_maps(evaluated, shown.clearest_maps, pixels, encoded),
    )
    path = output / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(page)
    return path


@dataclass(frozen=True)
class Shown:
    """Positions of the examples that each section shows."""

    samples: list[int]
    found: list[int]  # texts whose image came first, by the largest margin
    lost: list[int]  # texts whose image came last
    candidates: list[int]  # images shown for those texts
    first_maps: list[int]
    clearest_maps: list[int]

    @property
    def looked_into(self) -> list[int]:
        """Images whose segments or maps are drawn."""
        return sorted({*self.samples, *self.first_maps, *self.clearest_maps})

    @property
    def all(self) -> list[int]:
        return sorted({*self.looked_into, *self.found, *self.lost, *self.candidates})


def choose_shown(evaluated: Evaluated, num_pictures: int) -> Shown:
    """Samples and maps are the first of the set; only what says so is picked by its result."""
    scores = _retrieval_score(evaluated)
    ranks = text_to_image_ranks(scores, torch.arange(len(scores)))
    right = scores.diagonal()
    others = scores.clone().fill_diagonal_(float("-inf")).amax(dim=0)
    num_texts = max(1, num_pictures // 2)
    by_margin = (right - others).argsort(descending=True, stable=True).tolist()
    found = [text for text in by_margin if ranks[text] == 1][:num_texts]
    by_rank = ranks.argsort(descending=True, stable=True).tolist()
    lost = [text for text in by_rank if ranks[text] > 1][:num_texts]
    with_maps = [position for position, group in enumerate(evaluated.queries) if group]
    map_scores = evaluated.measurement.map_scores
    clearest = sorted(with_maps, key=lambda p: -max(score.iou for score in map_scores[p]))
    several = [position for position in with_maps if len(evaluated.queries[position]) > 1]
    first = (several or with_maps)[:num_pictures]
    return Shown(
        samples=list(range(min(num_pictures, len(evaluated.examples)))),
        found=found,
        lost=lost,
        candidates=[image for text in found + lost for image in _best_images(scores, text)],
        first_maps=first,
        clearest_maps=[position for position in clearest if position not in first][:num_texts],
    )


def _read_pixels(evaluated: Evaluated, shown: Shown) -> dict[int, Tensor]:
    """(3, H, W) uint8 of each shown example, as the model sees it."""
    config = evaluated.inference.config
    transform = evaluation_transform(config.data.image, config.model.image.size)
    some = [evaluated.examples[position] for position in shown.all]
    pictures = read_pictures(evaluated.folder, some)
    return {shown.all[number]: transform(picture) for number, picture in pictures}


def _encode(evaluated: Evaluated, pixels: Tensor) -> ImageFeatures:
    return encode_images(evaluated.inference, [normalise(pixels)], with_hierarchy=True)


def _retrieval_score(evaluated: Evaluated) -> Tensor:
    return next(iter(evaluated.measurement.scores.values()))


def _best_images(scores: Tensor, text: int) -> list[int]:
    return scores[:, text].argsort(descending=True, stable=True)[:_NUM_CANDIDATES].tolist()


def _retrieved(evaluated: Evaluated, text: int, pixels: Mapping[int, Tensor]) -> dict[str, Any]:
    """A text, its own image, and the images that were found for it."""
    scores = _retrieval_score(evaluated)
    ranks = text_to_image_ranks(scores, torch.arange(len(scores)))
    return {
        "text": join_sentences(evaluated.examples[text].sentences) + ".",
        "image": picture_uri(pixels[text]),
        "rank": int(ranks[text]),
        "candidates": [
            {"image": picture_uri(pixels[image]), "is_own": image == text}
            for image in _best_images(scores, text)
        ],
    }


def _maps(
    evaluated: Evaluated,
    positions: Sequence[int],
    pixels: Mapping[int, Tensor],
    encoded: Mapping[int, ImageFeatures],
) -> list[dict[str, Any]]:
    """Pictures with the maps of the first sentences that name one thing of them."""
    rows = []
    features = encode_queries(evaluated.inference, evaluated.queries, 64)
    for position in positions:
        heats, _ = query_maps(evaluated.inference, encoded[position], features[position])
        scores: list[MapScore] = evaluated.measurement.map_scores[position]
        maps = [
            {
                "image": map_uri(pixels[position], heat, query.named.boxes),
                "sentence": query.named.sentence,
                "name": query.named.name,
                "hit": score.hit,
                "iou": score.iou,
            }
            for heat, query, score in zip(heats, evaluated.queries[position], scores, strict=True)
        ]
        rows.append({"image": picture_uri(pixels[position]), "maps": maps[:_NUM_MAPS]})
    return rows


def _count_towers(inference: InferenceModel) -> dict[str, int]:
    model = inference.model
    whole = num_parameters(model.whole_text) if model.whole_text is not None else 0
    return {"image": num_parameters(model.image), "text": num_parameters(model.part_text) + whole}
