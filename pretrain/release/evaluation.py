"""Figures go into a release only with the weights that they were measured with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.config import PretrainConfig
from pretrain.evaluate.benchmarks.results import RESULTS
from pretrain.evaluate.command import RESULT
from recaption.common.files import read_json

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


def _mapping(tree: Any) -> dict[str, Any]:
    return tree if isinstance(tree, dict) else {}


def _without_examples(result: dict[str, Any]) -> dict[str, Any]:
    figures = {name: value for name, value in result["figures"].items() if name not in _EXAMPLES}
    return result | {"figures": figures}
