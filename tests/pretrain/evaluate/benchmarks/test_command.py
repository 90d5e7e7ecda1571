"""The command on small benchmarks: its figures, its page, and the mistakes of users."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pretrain.evaluate import main
from pretrain.evaluate.benchmarks import docci
from pretrain.evaluate.benchmarks.base import RetrievalSet
from pretrain.evaluate.benchmarks.choosing import choose
from pretrain.evaluate.benchmarks.registry import BENCHMARKS, Benchmark
from pretrain.evaluate.config import read_arguments
from pretrain.evaluate.encoders import Encoders, NoMapsError
from recaption.common.config import ConfigError, UserError
from recaption.common.files import sha256_file
from tests.pretrain.evaluate.benchmarks.layouts import (
    TEXTS,
    write_coco,
    write_docci,
    write_urban1k,
)
from tests.pretrain.evaluate.benchmarks.models import write_open_clip
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import write_run


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("roots")
    return {
        "docci": write_docci(folder / "docci"),
        "urban1k": write_urban1k(folder / "urban1k"),
        "coco": write_coco(folder / "coco"),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "caft")


def test_all_benchmarks_of_a_config_by_the_command(
    run: Path, roots: dict[str, Path], tmp_path: Path
) -> None:
    config = tmp_path / "benchmarks.yaml"
    lines = [f"  {name}: {root}" for name, root in roots.items()]
    config.write_text("\n".join(["roots:", *lines, "variants: {coco: first5}"]) + "\n")
    arguments = ["benchmark=all", f"checkpoint={run}", f"output={tmp_path}", "allow_missing=true"]
    done = subprocess.run(
        [sys.executable, "-m", "pretrain", "evaluate", str(config), *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    results = json.loads((tmp_path / "results.json").read_text())
    keys = {"docci", "urban1k", "coco:first5"}
    assert set(printed["benchmarks"]) == set(results["benchmarks"]) == keys
    assert "COCO first5: 0.06% of it, not to be compared" in done.stdout
    assert re.search(r"caft/step-00000007, blended +\d+\.\d \(\d+\.\d-\d+\.\d\)", done.stdout)

    coco = results["benchmarks"]["coco:first5"]
    assert coco["variant"] == "first5"
    assert (coco["figures"]["num_images"], coco["figures"]["num_texts"]) == (3, 15)
    assert coco["coverage"]["share"] == 3 / 5000
    assert list(coco["figures"]["columns"]) == ["blended", "whole", "local"]
    recall = coco["figures"]["columns"]["blended"]["text_to_image"]
    assert recall["r1_interval"][0] <= recall["r1"] <= recall["r1_interval"][1]
    # Five of fifteen texts are an image's own; one of three images is a text's own.
    assert coco["figures"]["chance"]["text_to_image"]["r1"] == pytest.approx(1 / 3)
    assert coco["figures"]["chance"]["image_to_text"]["r1"] == pytest.approx(1 / 3)
    annotations = roots["coco"] / "annotations" / "captions_val2017.json"
    assert coco["inputs"]["files"] == {
        "annotations/captions_val2017.json": sha256_file(annotations)
    }
    assert coco["inputs"]["pictures"]["num_files"] == 3

    weights = run / "checkpoints" / "step-00000007" / "model.safetensors"
    assert results["model"]["weights"]["sha256"] == sha256_file(weights)
    assert results["code"]["version"]

    page = (tmp_path / "report" / "benchmarks.html").read_text()
    assert "Found most clearly" in page or "Lost most badly" in page
    assert TEXTS[1] in page
    assert page.count("From parts to whole") == page.count("Where a sentence looks") == 3
    assert page.count('alt="map of: It has a colour"') >= 3
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > 20
    assert all(source.startswith(("data:image/", "#")) for source in sources)


def test_what_utf_8_cannot_write(run: Path, tmp_path: Path) -> None:
    """Half an emoji, as of a caption that was cut off, and a name of Latin-1, in data and page."""
    root = write_urban1k(tmp_path / "urban1k")
    (root / "image" / "1.jpg").rename(root / "image" / "caf\udce9.jpg")
    (root / "caption" / "1.txt").rename(root / "caption" / "caf\udce9.txt")
    (root / "image" / "2.jpg").rename(root / "image" / "th\udce9.jpg")
    docci = write_docci(tmp_path / "docci")
    path = docci / "annotations" / "docci_descriptions.jsonlines"
    path.write_text(path.read_text().replace("This is", "A dog \\ud83d is"))
    arguments = ["allow_missing=true", f"checkpoint={run}", f"output={tmp_path}", "num_pictures=3"]
    main(["benchmark=all", f"roots={{docci: {docci}, urban1k: {root}}}", *arguments])
    results = json.loads((tmp_path / "results.json").read_text())["benchmarks"]
    assert results["docci"]["coverage"]["notes"] == {"texts with half a character": 3}
    assert "caption/caf\udce9.txt" in results["urban1k"]["inputs"]["files"]
    assert "caption/th\udce9.txt" in results["urban1k"]["coverage"]["missing"]
    page = (tmp_path / "report" / "benchmarks.html").read_text(encoding="utf-8")
    assert "A dog \ufffd is picture" in page
    assert "caption/caf?.txt" in page and "caption/th?.txt" in page


def test_a_model_of_open_clip_is_compared_in_the_same_way(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, weights = write_open_clip(tmp_path)
    arguments = [f"model=open_clip:{config}", f"checkpoint={weights}", f"output={tmp_path}"]
    main(["benchmark=docci", f"root={roots['docci']}", "allow_missing=true", *arguments])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["model"]["architecture"] == "canopy-tiny"
    assert list(results["benchmarks"]["docci"]["figures"]["columns"]) == ["score"]
    assert "canopy-tiny (weights)" in capsys.readouterr().out


def test_captions_beyond_the_context_are_counted(roots: dict[str, Path], tmp_path: Path) -> None:
    short = write_run(tmp_path / "run", TINY.replace("context_length: 32", "context_length: 5"))
    arguments = [f"root={roots['docci']}", f"checkpoint={short}", "allow_missing=true"]
    main(["benchmark=docci", *arguments, "report=false"])
    figures = json.loads((short / "results.json").read_text())["benchmarks"]["docci"]["figures"]
    assert figures["share_cut"] == 1.0
    assert not (short / "report").exists()


def test_the_batch_does_not_change_the_figures(
    run: Path, roots: dict[str, Path], tmp_path: Path
) -> None:
    figures = []
    for size in (1, 4):
        output = tmp_path / str(size)
        arguments = [f"root={roots['urban1k']}", f"checkpoint={run}", f"output={output}"]
        main(["benchmark=urban1k", *arguments, "allow_missing=true", f"batch_size={size}"])
        results = json.loads((output / "results.json").read_text())
        figures.append(results["benchmarks"]["urban1k"]["figures"])
    assert figures[0] == figures[1]


def test_published_figures_stand_beside_a_whole_set(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(docci._NUM_IMAGES, "test", 3)
    root = write_docci(tmp_path / "docci")
    main(["benchmark=docci", f"root={root}", f"checkpoint={run}", f"output={tmp_path}"])
    printed = capsys.readouterr().out
    assert "DOCCI test: all of it" in printed
    assert re.search(r"Long-CLIP \(400M \+ 1M\) +71\.4 .* 63\.1", printed)
    unknown = "whether qual_test is among their pictures is not known here"
    assert f"published figures: {unknown}" in printed
    page = (tmp_path / "report" / "benchmarks.html").read_text()
    assert "Long-CLIP (400M + 1M)" in page
    assert f"in the units of ours; {unknown}." in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["benchmark=docki", "root=x"], "did you mean docci"),
        (["benchmark=docci"], "needs root=FOLDER"),
        (["benchmark=docci", "root=/nowhere"], "root=/nowhere is no folder"),
        (["benchmark=docci", "root=/nowhere", "variant=1999"], "has no variant '1999'"),
        (["benchmark=docci", "root=/nowhere", "variant=[test,1999]"], "has no variant '1999'"),
        (["benchmark=iiw", "root=/nowhere", "variant=1999"], "'1999', nor any other"),
        (["benchmark=all"], "give some"),
        (["benchmark=all", "roots={dokki: x}"], "did you mean docci"),
        (["benchmark=docci,coco", "root=x"], "root is for one benchmark"),
        (["benchmark=docci,all", "roots={docci: x}"], "benchmark=all stands alone"),
        (["benchmark=COCO", "root=x"], "did you mean coco?"),
        (["benchmark=docci", "root=x", "variants={coco: nonsense}"], "coco has no variant"),
        (["benchmark=docci", "root=x", "compare=other"], "compare: a list is needed: [VALUE, ...]"),
        (["benchmark=docci", "root=x", "data=y"], "either data=FOLDER"),
        ([], "either data=FOLDER"),
        (["benchmark=docci", "root=x", "source=long"], "source says nothing"),
        (["data=x", "variant=test"], "variant says nothing"),
        (["benchmark=docci", "root=x", "num_candidates=0"], "num_candidates=0"),
        (["benchmark=docci", "root=x", "alpha=7"], "alpha=7.0: a share, 0 to 1"),
        (["benchmark=docci", "root=x", "alpha=.nan"], "alpha=nan: a share, 0 to 1"),
        (["benchmark=docci", "root=x", "num_pictures=-1"], "num_pictures=-1: it must be at least"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], message: str, run: Path) -> None:
    with pytest.raises(ConfigError if "nowhere is" not in message else UserError) as caught:
        main([f"checkpoint={run}", *arguments])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_model_is_called_chance(roots: dict[str, Path], run: Path) -> None:
    arguments = ["benchmark=docci", f"root={roots['docci']}", f"checkpoint={run}", "name=chance"]
    with pytest.raises(ConfigError, match="a model called chance cannot be told from it"):
        main([*arguments, "allow_missing=true"])


def test_help_names_benchmarks_and_variants(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert re.search(r"\n  dci +7805, 1999, joint\n", told)
    assert all(f"\n  {name}" in told for name in BENCHMARKS)


@pytest.mark.parametrize("wanted", ["testA,testA", "[testA]", "every", "all"])
def test_several_variants_may_be_wanted(wanted: str) -> None:
    given = ["benchmark=refcoco", "root=x", "checkpoint=y", f"variant={wanted}"]
    chosen = [one.key for one in choose(read_arguments(given))]
    some = ["refcoco:testA"] if "testA" in wanted else ["refcoco", "refcoco:testA", "refcoco:testB"]
    assert chosen == some


def test_all_is_a_variant_where_it_is_called_so() -> None:
    given = ["benchmark=all", "roots={coco: x, dci: y}", "checkpoint=z"]
    variants = "variants={coco: all, dci: [1999, joint]}"
    chosen = [one.key for one in choose(read_arguments([*given, variants]))]
    assert chosen == ["dci:1999", "dci:joint", "coco"]
    chosen = [one.key for one in choose(read_arguments([*given, "variants={coco: every}"]))]
    assert chosen == ["dci", "coco", "coco:first5"]


def test_keys_of_canopy_say_nothing_to_open_clip(roots: dict[str, Path], tmp_path: Path) -> None:
    config, weights = write_open_clip(tmp_path)
    common = ["benchmark=docci", f"root={roots['docci']}", "allow_missing=true", "output=x"]
    with pytest.raises(ConfigError, match="alpha says nothing"):
        main([*common, f"model=open_clip:{config}", f"checkpoint={weights}", "alpha=0.5"])
    with pytest.raises(ConfigError, match="model=clip: leave it out"):
        main([*common, "model=clip", f"checkpoint={weights}"])


def test_a_task_of_another_kind_takes_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def count(data: RetrievalSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
        figures = {"top1": 0.25, "by_class": {"cat": 0.5}}
        return {**figures, "note": "text", "chance": {"top1": 1 / len(data.images)}}

    other = Benchmark("other", "Other", docci.VARIANTS, docci.read, count)
    monkeypatch.setitem(BENCHMARKS, "other", other)
    root = write_docci(tmp_path / "docci")
    arguments = [f"checkpoint={run}", f"output={tmp_path}", "allow_missing=true"]
    main(["benchmark=other", f"root={root}", *arguments])
    printed = capsys.readouterr().out
    assert re.search(r"top1 +by_class cat\n", printed)
    assert re.search(r"step-00000007 +0\.2500 +0\.5000\n", printed)
    assert re.search(r"chance +0\.3333", printed)
    assert "by_class cat" in (tmp_path / "report" / "benchmarks.html").read_text()


def test_what_a_model_cannot_answer_is_left_out_and_named(
    run: Path,
    roots: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(data: RetrievalSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
        raise NoMapsError(f"{encoders.name} makes no maps of sentences")

    maps = Benchmark("maps", "Maps", docci.VARIANTS, docci.read, refuse)
    monkeypatch.setitem(BENCHMARKS, "maps", maps)
    given = f"roots={{maps: {roots['docci']}, urban1k: {roots['urban1k']}}}"
    arguments = [f"checkpoint={run}", f"output={tmp_path}", "allow_missing=true", "num_pictures=1"]
    main(["benchmark=all", given, *arguments])
    told = capsys.readouterr()
    assert "warning: Maps test is left out: caft/step-00000007 makes no maps" in told.err
    why = "caft/step-00000007 makes no maps of sentences"
    assert f"maps: left out, as {why}" in told.out
    page = (tmp_path / "report" / "benchmarks.html").read_text()
    assert f"<dt>maps</dt><dd>{why}</dd>" in page
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["benchmarks"]) == {"urban1k"} and set(results["left_out"]) == {"maps"}
    with pytest.raises(NoMapsError, match="makes no maps of sentences"):
        main(["benchmark=maps", f"root={roots['docci']}", *arguments])
