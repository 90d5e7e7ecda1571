"""`report/benchmarks.html`: tables, and what was found and lost, with pictures. One file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import ImageOps

from pretrain.evaluate.benchmarks.base import Picture
from pretrain.evaluate.benchmarks.page_looks import Looks, look_into
from pretrain.evaluate.benchmarks.table import (
    Line,
    Others,
    is_whole,
    lines_of,
    main_lines,
    share_told,
    title_lines,
)
from pretrain.evaluate.bootstrap import INTERVALS
from pretrain.evaluate.encoders import Encoders
from pretrain.evaluate.pictures import data_uri
from recaption.common.files import atomic_write

PAGE = Path("report") / "benchmarks.html"
_TEMPLATES = Path(__file__).parents[1]
_WIDTH = 115  # characters of a table; a wider one has a figure a line, and a model a column
_SIDE = 216  # pixels of a picture in the file; shown at half


def write_page(
    results: Mapping[str, Any],
    others: Mapping[str, Others],
    sets: Mapping[str, tuple[Path, Any]],
    encoders: Encoders,
    output: Path,
    num_pictures: int,
) -> Path:
    """Writes `output`/report/benchmarks.html and returns its path.

    Args:
        results: what stands in `results.json`.
        others: what other models reached, by benchmark.
        sets: folder of each benchmark, and what its reader returned, for the pictures. Benchmarks
            that are not among them have no pictures.
        encoders: the model, which is asked for the segments and maps of what is shown.
        num_pictures: texts of the best, and of the worst, of each benchmark of retrieval.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(_TEMPLATES),
    )
    model = results["model"]["name"]
    sections = [
        _section(key, result, model, others.get(key, ()), sets.get(key), encoders, num_pictures)
        for key, result in results["benchmarks"].items()
    ]
    page = environment.get_template("benchmarks/page.html.jinja").render(
        results=results, sections=sections, models=_models(sections), intervals=INTERVALS
    )
    path = output / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        # A file may have a name that is no UTF-8.
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return path


def _section(
    key: str,
    result: Mapping[str, Any],
    model: str,
    others: Others,
    read: tuple[Path, Any] | None,
    encoders: Encoders,
    num_pictures: int,
) -> dict[str, Any]:
    figures = result["figures"]
    lines = lines_of(result, model, others)
    columns = list(dict.fromkeys(column for line in lines for column in line.cells))
    looks = look_into(read[1], figures, encoders, num_pictures) if read else Looks()
    return {
        "key": key,
        "title": title_lines(result)[0],
        "share": "all" if is_whole(result["coverage"]) else share_told(result["coverage"]),
        "result": result,
        "main": main_lines(result, model, others),
        "lines": lines,
        "columns": columns,
        "is_tall": _width(lines, columns) > _WIDTH,
        "examples": {
            kind: [_shown(example, read[0]) for example in examples[:num_pictures]]
            for kind, examples in figures.get("examples", {}).items()
            if read
        },
        "hierarchies": looks.hierarchies,
        "maps": looks.maps,
    }


def _width(lines: Sequence[Line], columns: Sequence[str]) -> int:
    """Characters of a table with a figure a column; heads are broken between words."""
    heads = {column: max(map(len, column.split())) for column in columns}
    cells = [max(heads[c], *(len(x.cells.get(c, "")) for x in lines)) + 3 for c in columns]
    return 20 + sum(cells)


def _models(sections: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the columns of what stands on top: ours, others', and chance behind them."""
    lines = [line for section in sections for line in section["main"]]
    by_kind = sorted(lines, key=lambda line: line.kind == "chance")
    return list(dict.fromkeys(line.name for line in by_kind))


def _shown(example: Mapping[str, Any], root: Path) -> dict[str, Any]:
    return {
        "text": example["text"],
        "rank": example["rank"],
        "image": _uri(root, example["image"]),
        "candidates": [
            {"image": _uri(root, name), "is_own": name == example["image"]}
            for name in example["candidates"]
        ],
    }


def _uri(root: Path, name: str) -> str:
    return data_uri(ImageOps.fit(Picture(root, name).open(), (_SIDE, _SIDE)))
