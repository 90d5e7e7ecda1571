"""Evaluates a model on MDS shards, writes `evaluation.json` and the report."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pretrain.checkpoint import run_folder
from pretrain.evaluate.config import EvaluateConfig
from pretrain.evaluate.encode import best_device
from pretrain.evaluate.examples import ExampleSet, choose_examples, named_sentences
from pretrain.evaluate.localisation import LocalisationResult, summarise
from pretrain.evaluate.measure import Measurement, measure, pair_with_others
from pretrain.evaluate.provenance import describe_code, describe_data, describe_weights
from pretrain.evaluate.report import Evaluated, write_report
from pretrain.evaluate.retrieval import RetrievalResult, chance, retrieval
from pretrain.evaluate.scores import resolve_alpha
from pretrain.inference import RELEASE_CONFIG, InferenceModel, load_for_inference
from pretrain.metrics import METRICS
from recaption.common.config import UserError, print_json, write_config
from recaption.common.files import atomic_write

RESULT = "evaluation.json"

#: What the figures mean; it goes into the file with them.
PROTOCOL = {
    "retrieval": "one caption an image; recall@k is the share of queries whose match is among the "
    "first k; every candidate that is not scored strictly below the match counts as ahead of it",
    "alpha": "share of the local score in CAFT's blended one; the rest is the whole score",
    "localisation": "sentences that name exactly one thing of their image (whole words, longest "
    "name first; the colour decides among things of one name; things alike count as one, with the "
    "union of their boxes)",
    "pointing": "share of maps whose peak lies in a box; the peak is the pixel of the hottest "
    "segment next to its centre of mass; chance is the boxes' share of the image",
    "pointing_other_sentence": "the same with the map of a sentence that names another thing",
    "iou": "boxes against the pixels of the map above its mean plus one standard deviation; chance "
    "is the mean over all places to which that region can be moved, wrapping round",
}


def evaluate_shards(config: EvaluateConfig, argv: list[str]) -> None:
    """Retrieval, and localisation where there are boxes, on MDS shards."""
    started = time.monotonic()
    inference = load_for_inference(config.checkpoint, config.image_size, config.ema)
    output = output_folder(config, inference)
    alpha = resolve_alpha(inference.objective, config.alpha)
    inference.model.to(best_device())
    inference.objective.to(best_device())

    chosen = choose_examples(Path(config.data), inference.config, config.source, config.num_samples)
    queries = pair_with_others(named_sentences(chosen.examples, inference.config.data.image))
    measurement = measure(
        inference, Path(config.data), chosen.examples, queries, config.batch_size, alpha
    )
    result = collect(config, inference, chosen, measurement)
    result["seconds"] = round(time.monotonic() - started, 1)
    output.mkdir(parents=True, exist_ok=True)
    with atomic_write(output / RESULT) as path:
        path.write_text(json.dumps(result, indent=2) + "\n")
    write_config(config, output / "evaluate.yaml")
    report = None
    if config.report:
        evaluated = Evaluated(
            inference, Path(config.data), chosen.examples, queries, measurement, result
        )
        metrics = inference.source.parent.parent / METRICS
        report = write_report(evaluated, metrics, output, config.num_pictures)
    print(format_table(result))
    print(f"\nwritten: {output / RESULT}" + (f", {report}" if report else ""))
    written = {"evaluation": str(output / RESULT), "report": str(report) if report else None}
    print_json(argv, result["summary"] | written)


def output_folder(config: EvaluateConfig, inference: InferenceModel) -> Path:
    """Where the results go: next to the run's checkpoints unless the user says otherwise.

    Raises:
        UserError: for a release without `output`; its files are closed by checksums.
    """
    if config.output:
        return Path(config.output)
    if (inference.source / RELEASE_CONFIG).is_file():
        raise UserError("a release is not written to: give output=FOLDER for the results")
    return run_folder(inference.source)


def collect(
    config: EvaluateConfig,
    inference: InferenceModel,
    chosen: ExampleSet,
    measurement: Measurement,
) -> dict[str, Any]:
    """All figures, what they mean, and what they were made from, as plain values."""
    examples = chosen.examples
    columns = {name: retrieval(scores) for name, scores in measurement.scores.items()}
    by_chance = chance(len(examples))
    map_scores = [score for scores in measurement.map_scores for score in scores]
    localised = summarise(map_scores, sum(bool(scores) for scores in measurement.map_scores))
    is_cut = [any(map(inference.tokenizer.is_cut, example.texts)) for example in examples]
    return {
        "summary": summary(next(iter(columns.values())), by_chance, localised, len(examples)),
        "retrieval": {
            "num_images": len(examples),
            "num_texts": len(examples),
            "alpha": resolve_alpha(inference.objective, config.alpha),
            "num_repeated_texts": len(examples) - len({example.texts for example in examples}),
            "chance": asdict(by_chance),
            "columns": {name: asdict(result) for name, result in columns.items()},
        },
        "captions": {
            "source": config.source or "longest",
            "context_length": inference.tokenizer.context_length,
            "share_cut": sum(is_cut) / len(is_cut),
            "num_samples_without": chosen.num_without_caption,
        },
        "localisation": asdict(localised) if localised else None,
        "protocol": PROTOCOL,
        "checkpoint": describe_weights(inference.weights),
        "data": describe_data(Path(config.data)),
        "code": describe_code(),
        "arguments": {name: asdict(config)[name] for name in ("num_samples", "source")},
        "image_size": inference.config.model.image.size,
    }


def summary(
    result: RetrievalResult,
    by_chance: RetrievalResult,
    localised: LocalisationResult | None,
    num_images: int,
) -> dict[str, Any]:
    """The figures most asked for; those of localisation are None for a set without boxes."""
    return {
        "num_images": num_images,
        "t2i_r1": result.text_to_image.r1,
        "i2t_r1": result.image_to_text.r1,
        "chance_r1": by_chance.text_to_image.r1,
        "pointing": localised.pointing if localised else None,
        "pointing_chance": localised.pointing_chance if localised else None,
    }


def format_table(result: dict[str, Any]) -> str:
    """The figures as a few lines for a terminal."""
    retrieved = result["retrieval"]
    lines = [
        f"retrieval among {retrieved['num_images']} images, {result['captions']['share_cut']:.1%} "
        f"of the captions cut at {result['captions']['context_length']} tokens",
        f"{'':10}  {'text to image':^30}    {'image to text':^30}",
        f"{'score':10}" + f"{'R@1':>8}{'R@5':>8}{'R@10':>8}{'median':>8}  " * 2,
    ]
    for name, both in {**retrieved["columns"], "chance": retrieved["chance"]}.items():
        cells = [
            f"{way['r1']:8.1%}{way['r5']:8.1%}{way['r10']:8.1%}{way['median_rank']:8.1f}  "
            for way in (both["text_to_image"], both["image_to_text"])
        ]
        lines.append(f"{name:10}" + "".join(cells))
    found = result["localisation"]
    if found is None:
        lines.append("localisation: the set has no boxes that its sentences name")
    else:
        lines.append(
            f"localisation of {found['num_sentences']} sentences on {found['num_images']} images: "
            f"pointing {found['pointing']:.1%} (chance {found['pointing_chance']:.1%}, image "
            f"centre {found['pointing_centre']:.1%}, another sentence's map "
            f"{found['pointing_other_sentence']:.1%}), IoU {found['iou']:.3f} (chance "
            f"{found['iou_chance']:.3f}, whole image {found['iou_whole_image']:.3f})"
        )
    return "\n".join(lines)
