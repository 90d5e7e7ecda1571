"""Figures go into a release only with the weights that they were measured with."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.config import PretrainConfig
from pretrain.evaluate.benchmarks.results import RESULTS
from pretrain.evaluate.command import RESULT
from recaption.common.files import read_json

#: What a card is made of, of each of the two.
_SECTIONS = {"retrieval", "localisation", "captions", "data", "summary"}
_BENCHMARK_SECTIONS = {"title", "variant", "coverage", "figures"}
#: Texts and pictures of a benchmark, which are for its page and not ours to publish.
_EXAMPLES = {"examples", "maps"}


@dataclass
class Figures:
    """What was measured with the released weights; a note says why something was not."""

    evaluation: dict[str, Any] | None = None  # `evaluation.json`
    evaluation_note: str = ""
    benchmarks: dict[str, Any] | None = None  # `results.json`, without examples
    benchmarks_note: str = ""


def matching_figures(run: Path, config: PretrainConfig, weights: dict[str, Any]) -> Figures:
    """The figures in a run's folder that are of these very weights, on images of their size.

    Retrieval is that of the score which the release gives: CAFT's, with the alpha of the run.

    Args:
        run: the run's folder.
        config: of the run.
        weights: the file that is released, as `describe_weights` tells.
    """
    found = Figures()
    size = config.model.image.size
    if (run / RESULT).is_file():
        evaluation = _mapping(read_json(run / RESULT))
        measured, seen = _mapping(evaluation.get("checkpoint")), evaluation.get("image_size")
        why = _why_others(measured, seen, weights, size)
        why = why or _why_no_card(evaluation, config)
        found.evaluation_note = f"the run was evaluated {why}" if why else ""
        found.evaluation = None if why else evaluation
    else:
        found.evaluation_note = "the run has not been evaluated"
    if (run / RESULTS).is_file():
        results = _mapping(read_json(run / RESULTS))
        model, benchmarks = _mapping(results.get("model")), _mapping(results.get("benchmarks"))
        why = _why_others(_mapping(model.get("weights")), model.get("image_size"), weights, size)
        if not benchmarks:
            why = "without figures"
        for name, result in benchmarks.items():
            lacking = sorted(_BENCHMARK_SECTIONS - _mapping(result).keys())
            if lacking and not why:
                why = f"by another version: {RESULTS} lacks `{lacking[0]}` of {name}"
        found.benchmarks_note = f"benchmarks were run {why}" if why else ""
        if not why:
            bare = {name: _without_examples(result) for name, result in benchmarks.items()}
            found.benchmarks = results | {"benchmarks": bare}
    else:
        found.benchmarks_note = "no benchmark was run"
    return found


def _why_others(
    measured: dict[str, Any], image_size: int | None, weights: dict[str, Any], size: int
) -> str:
    """How what was measured differs from what is released; empty where it does not."""
    if measured.get("sha256") != weights["sha256"]:
        return f"at another checkpoint ({measured.get('folder', 'it is not said which')})"
    if image_size is None:
        return "on images of a size that is not said"
    if image_size != size:
        return f"on images of {image_size} px, not {size}"
    return ""


def _why_no_card(evaluation: dict[str, Any], config: PretrainConfig) -> str:
    lacking = sorted(_SECTIONS - evaluation.keys())
    if lacking:
        return f"by another version: {RESULT} lacks `{lacking[0]}`"
    alpha = _mapping(evaluation["retrieval"]).get("alpha")
    own = config.objective.caft.alpha if config.objective.name == "caft" else None
    return f"with alpha {alpha}, not {own}" if alpha != own else ""


def not_numbers(tree: Any, name: str = "") -> Iterator[str]:
    """Where figures are NaN or infinite: `retrieval.columns.blended.text_to_image.r1`."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from not_numbers(value, f"{name}.{key}" if name else key)
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from not_numbers(value, f"{name}.{number}")
    elif isinstance(tree, float) and not math.isfinite(tree):
        yield name


def _mapping(tree: Any) -> dict[str, Any]:
    return tree if isinstance(tree, dict) else {}


def _without_examples(result: dict[str, Any]) -> dict[str, Any]:
    figures = {name: value for name, value in result["figures"].items() if name not in _EXAMPLES}
    return result | {"figures": figures}
