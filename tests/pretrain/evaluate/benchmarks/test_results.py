"""results.json over several commands: what is added, kept, and moved aside."""

import json
from dataclasses import replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.evaluate import main
from pretrain.evaluate.benchmarks import command
from pretrain.evaluate.benchmarks.base import Options
from pretrain.evaluate.benchmarks.cifar import read_cifar100
from pretrain.evaluate.benchmarks.compared import Compared, alike, named_apart
from pretrain.evaluate.benchmarks.described import describe
from pretrain.evaluate.benchmarks.registry import BENCHMARKS
from pretrain.evaluate.benchmarks.results import Results
from pretrain.evaluate.config import EvaluateConfig
from recaption.common.config import UserError, read_config
from tests.pretrain.evaluate.benchmarks.layouts import write_docci, write_urban1k
from tests.pretrain.evaluate.benchmarks.vision_layouts import write_cifar100
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP, write_run

CODE = {"version": "1", "commit": "abc", "torch": "2"}


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(command, "describe_code", lambda: CODE)
    write_docci(tmp_path / "docci")
    write_urban1k(tmp_path / "urban1k")
    return ["allow_missing=true", f"output={tmp_path}", "report=false"]


def entry(name: str) -> dict[str, Any]:
    """A result as a table needs it."""
    coverage = {"num_expected": 1, "num_samples": 1, "num_missing": 0, "share": 1.0, "notes": {}}
    told = {"title": name, "variant": "", "coverage": coverage, "published": {}, "caveat": ""}
    return told | {"figures": {"top1": 0.5}}


def results(folder: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return tree


def test_benchmarks_one_by_one_stand_in_one_file(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", TINY)
    for name in ("docci", "urban1k"):
        main([f"benchmark={name}", f"root={tmp_path / name}", f"checkpoint={run}", *arguments])
    assert set(results(tmp_path)["benchmarks"]) == {"docci", "urban1k"}
    told = capsys.readouterr().out
    assert "kept" not in told and "of an earlier command" not in told
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "benchmarks.html").touch()
    main(["benchmark=docci", f"root={tmp_path / 'docci'}", f"checkpoint={run}", *arguments])
    assert "benchmarks.html is of an earlier command: report=true" in capsys.readouterr().out


def test_variants_stand_beside_each_other(arguments: list[str], tmp_path: Path) -> None:
    """One after the other, or several at once; the usual one under the benchmark's name."""
    run = write_run(tmp_path / "run", TINY)
    given = ["benchmark=docci", f"root={tmp_path / 'docci'}", f"checkpoint={run}", *arguments]
    main([*given, "variant=test"])
    usual = results(tmp_path)["benchmarks"]["docci"]
    main([*given, "variant=test+qual_test"])
    both = results(tmp_path)["benchmarks"]
    assert both["docci"] == usual
    assert both["docci:test+qual_test"]["figures"]["num_images"] == 4
    for wanted in ("variant=every", "variants={docci: [test+qual_test, test]}"):
        (tmp_path / "results.json").unlink()
        main([*given, wanted])
        assert list(results(tmp_path)["benchmarks"]) == ["docci", "docci:test+qual_test"]


def test_results_of_one_variant_a_benchmark_are_read(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they were written before: under the benchmark's name, whatever the variant."""
    run = write_run(tmp_path / "run", TINY)
    given = ["benchmark=docci", f"root={tmp_path / 'docci'}", f"checkpoint={run}", *arguments]
    main([*given, "variant=test+qual_test"])
    tree = results(tmp_path)
    tree["benchmarks"] = {"docci": tree["benchmarks"]["docci:test+qual_test"]}
    (tmp_path / "results.json").write_text(json.dumps(tree))
    capsys.readouterr()
    main([*given, "variant=every", f"compare=[{tmp_path}]"])
    told = capsys.readouterr()
    assert "DOCCI test+qual_test was evaluated before" in told.out
    assert "not compared" not in told.err
    assert set(results(tmp_path)["benchmarks"]) == {"docci", "docci:test+qual_test"}


def test_commands_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    """Each knows the file as it was at its start."""
    header = {"model": {"name": "tiny"}, "code": CODE}
    one, two = Results(tmp_path, header), Results(tmp_path, header)
    one.put("docci", entry("docci"))
    two.put("urban1k", entry("urban1k"))
    assert one.has("urban1k", {"variant": ""})
    one.leave_out("refcoco", "it makes no maps")
    assert set(results(tmp_path)["benchmarks"]) == {"docci", "urban1k"}
    assert set(results(tmp_path)["left_out"]) == {"refcoco"}


def _put_many(folder: Path, keys: list[str], all_there: Any) -> None:
    mine = Results(folder, {"model": {"name": "tiny"}, "code": CODE})
    for key in keys:
        all_there.wait()
        mine.put(key, entry(key))


def test_processes_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    shares = [[f"{letter}{number}" for number in range(8)] for letter in "abc"]
    context = get_context("fork")
    all_there = context.Barrier(len(shares), timeout=60)
    started = [
        context.Process(target=_put_many, args=(tmp_path, keys, all_there)) for keys in shares
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert set(results(tmp_path)["benchmarks"]) == {key for keys in shares for key in keys}


def test_the_page_has_pictures_of_earlier_commands(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", TINY)
    given = [f"checkpoint={run}", *arguments, "report=true"]
    for name in ("docci", "urban1k"):
        main([f"benchmark={name}", f"root={tmp_path / name}", *given])
    page = tmp_path / "report" / "benchmarks.html"
    assert page.read_text().count("Where a sentence looks") == 2
    kept = read_config(EvaluateConfig, tmp_path / "benchmarks.yaml")
    assert kept.roots == {name: str(tmp_path / name) for name in ("docci", "urban1k")}
    (tmp_path / "docci" / "annotations" / "docci_descriptions.jsonlines").write_text("{}\n")
    capsys.readouterr()
    main(["benchmark=urban1k", f"root={tmp_path / 'urban1k'}", *given])
    assert "warning: no pictures of DOCCI test on the page" in capsys.readouterr().err
    assert page.read_text().count("Where a sentence looks") == 1


def test_what_is_remembered_makes_all_again(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", TINY)
    given = [f"checkpoint={run}", *arguments]
    main(["benchmark=docci", f"root={tmp_path / 'docci'}", "variant=every", *given])
    main(["benchmark=urban1k", f"root={tmp_path / 'urban1k'}", *given])
    capsys.readouterr()
    main([str(tmp_path / "benchmarks.yaml")])
    assert capsys.readouterr().out.count("was evaluated before") == 3


def test_what_is_remembered_makes_all_again_from_elsewhere(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path / "run", TINY)
    monkeypatch.chdir(tmp_path)
    main(["benchmark=docci", "root=docci", "checkpoint=run", *arguments, "output=out"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    capsys.readouterr()
    main([str(tmp_path / "out" / "benchmarks.yaml")])
    assert "was evaluated before" in capsys.readouterr().out
    assert not list((tmp_path / "elsewhere").iterdir())


def test_two_models_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    headers = [{"model": {"name": name}, "code": CODE} for name in ("a", "b")]
    a, b = (Results(tmp_path, header) for header in headers)
    a.put("docci", entry("docci"))
    b.put("docci", entry("docci"))
    a.put("urban1k", entry("urban1k"))
    assert set(results(tmp_path)["benchmarks"]) == {"docci", "urban1k"}
    assert a.moved == [tmp_path / "results-2.json"] and b.moved == [tmp_path / "results-1.json"]
    moved = [json.loads(path.read_text())["model"]["name"] for path in (*b.moved, *a.moved)]
    assert moved == ["a", "b"]


def test_what_is_done_is_not_done_again_unless_its_files_changed(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", TINY)
    roots = f"roots={{docci: {tmp_path / 'docci'}, urban1k: {tmp_path / 'urban1k'}}}"
    main(["benchmark=all", roots, f"checkpoint={run}", *arguments])
    first = results(tmp_path)
    caption = tmp_path / "urban1k" / "caption" / "1.txt"
    caption.write_text("Something else entirely.\n")
    capsys.readouterr()
    main(["benchmark=all", roots, f"checkpoint={run}", *arguments])
    printed = capsys.readouterr().out
    assert "DOCCI test was evaluated before" in printed and "Urban1k was evaluated" not in printed
    again = results(tmp_path)
    assert again["benchmarks"]["docci"] == first["benchmarks"]["docci"]
    assert again["benchmarks"]["urban1k"]["inputs"] != first["benchmarks"]["urban1k"]["inputs"]


@pytest.mark.parametrize("commit", ["abc+", None], ids=["changed", "installed"])
def test_code_that_may_have_changed_keeps_nothing(
    commit: str | None,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "describe_code", lambda: {**CODE, "commit": commit})
    run = write_run(tmp_path / "run", TINY)
    for _ in range(2):
        main(["benchmark=docci", f"root={tmp_path / 'docci'}", f"checkpoint={run}", *arguments])
    assert "was evaluated before" not in capsys.readouterr().out


def test_results_of_another_model_are_moved_aside(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, config in (("caft", TINY), ("clip", TINY_CLIP)):
        run = write_run(tmp_path / name, config)
        main(["benchmark=docci", f"root={tmp_path / 'docci'}", f"checkpoint={run}", *arguments])
    assert f"were there: now {tmp_path / 'results-1.json'}" in capsys.readouterr().out
    moved = json.loads((tmp_path / "results-1.json").read_text())
    assert (moved["model"]["objective"], results(tmp_path)["model"]["objective"]) == (
        "caft",
        "clip",
    )


def test_a_command_that_fails_leaves_the_results_of_others(
    arguments: list[str], tmp_path: Path
) -> None:
    given = ["benchmark=docci", f"root={tmp_path / 'docci'}", *arguments]
    run = write_run(tmp_path / "run", TINY)
    main([*given, f"checkpoint={run}"])
    before = (tmp_path / "results.json").read_bytes()
    pictures = sorted((tmp_path / "docci" / "images").iterdir())
    for picture in pictures:  # sound at both ends, and no picture between
        content = picture.read_bytes()
        picture.write_bytes(content[:60] + bytes(len(content) - 80) + content[-20:])
    with pytest.raises(UserError):
        main([*given, f"checkpoint={run}", "alpha=0.5"])
    assert (tmp_path / "results.json").read_bytes() == before


def test_other_models_stand_beside(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, config in (("caft", TINY), ("clip", TINY_CLIP)):
        run = write_run(tmp_path / name, config)
        for benchmark in ("docci", "urban1k"):
            given = [f"benchmark={benchmark}", f"root={tmp_path / benchmark}"]
            main([*given, f"checkpoint={run}", *arguments, f"output={run}", f"name={name}"])
    (tmp_path / "urban1k" / "caption" / "1.txt").write_text("Another text.\n")
    capsys.readouterr()
    roots = f"roots={{docci: {tmp_path / 'docci'}, urban1k: {tmp_path / 'urban1k'}}}"
    given = [f"checkpoint={tmp_path / 'clip'}", f"compare=[{tmp_path / 'caft'}]", "report=true"]
    main(["benchmark=all", roots, *arguments, *given, "name=ours"])
    told = capsys.readouterr()
    docci, urban1k = told.out.split("Urban1k: ")
    assert docci.index("\nours ") < docci.index("\ncaft, blended ") < docci.index("\nchance ")
    assert "caft" not in urban1k.partition("written:")[0]
    assert "urban1k of caft is not compared" in told.err
    page = (tmp_path / "report" / "benchmarks.html").read_text()
    assert page.count("<td>caft, blended</td>") == 1


@pytest.mark.parametrize("other", ["protocol", "templates"])
def test_figures_by_other_prompts_or_another_protocol_do_not_compare(
    other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = read_cifar100(write_cifar100(tmp_path), Options(allow_missing=True))
    ours = describe(BENCHMARKS["cifar100"], "test", data)
    theirs = describe(BENCHMARKS["cifar100"], "test", replace(data, templates=["a {}."]))
    if other == "protocol":
        theirs = ours | {"protocol": "with other prompts"}
    assert ours["inputs"]["classes"]["number"] == 2
    compared = [Compared("same", {"cifar100": ours}), Compared("other", {"cifar100": theirs})]
    assert [name for name, _ in alike("cifar100", ours, compared)] == ["same"]
    assert "cifar100 of other is not compared" in capsys.readouterr().err


def test_the_class_of_each_image_is_an_input(tmp_path: Path) -> None:
    """ImageNet's comes from a library's list of ids: no file of the root tells it."""
    data = read_cifar100(write_cifar100(tmp_path), Options(allow_missing=True))
    inputs = [
        describe(BENCHMARKS["imagenet"], "val", replace(data, labels=[label]))["inputs"]
        for label in (0, 1)
    ]
    assert inputs[0] != inputs[1]


def test_two_models_of_one_name_have_columns_of_their_own() -> None:
    named = named_apart("tiny", [Compared("tiny", {}), Compared("tiny", {}), Compared("b", {})])
    assert [other.model for other in named] == ["tiny (2)", "tiny (3)", "b"]
    (other,) = named_apart("tiny", [Compared("chance", {})])
    assert other.model == "chance (2)"


def test_what_it_was_computed_with_is_told(arguments: list[str], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TINY)
    main(["benchmark=docci", f"root={tmp_path / 'docci'}", f"checkpoint={run}", *arguments])
    tree = results(tmp_path)
    assert tree["libraries"]["pillow"] == version("pillow")
    machine = tree["benchmarks"]["docci"]["machine"]
    assert (machine["num_ranks"], machine["num_threads"]) == (1, torch.get_num_threads())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is there; `evaluate benchmark=` writes it"),
        ("{}", "holds no results"),
        ("3", "holds no results"),
        (json.dumps({"model": {"name": "a"}, "benchmarks": []}), "holds no results"),
        (json.dumps({"model": {"name": "a"}, "benchmarks": {"docci": 3}}), "holds no results"),
        (json.dumps({"model": {"name": "a"}, "benchmarks": {"docci": {}}}), "holds no results"),
        (json.dumps({"model": 3, "benchmarks": {}}), "holds no results"),
        ("{", "other.json"),
    ],
)
def test_what_is_compared_must_be_results(
    content: str | None, message: str, arguments: list[str], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "other.json").write_text(content)
    given = [f"compare=[{tmp_path / 'other.json'}]", f"checkpoint={tmp_path}"]
    with pytest.raises(UserError, match=message) as caught:
        main(["benchmark=docci", f"root={tmp_path / 'docci'}", *arguments, *given])
    assert "other.json" in str(caught.value)
