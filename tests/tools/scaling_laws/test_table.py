"""Tables as Canopy and as others write them, and tables with mistakes."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recaption.common.errors import UserError
from tests.tools.scaling_laws.synthetic import ladder_rows, write_rows
from tools.scaling_laws.table import Table, read_table


def read(
    path: Path,
    format_name: str = "auto",
    columns: dict[str, str] | None = None,
    where: dict[str, str] | None = None,
) -> Table:
    return read_table(str(path), format_name, columns or {}, where or {})


def test_canopys_own_columns(tmp_path: Path) -> None:
    rows = [row | {"seed": "03", "note": "x", "gpu_hours": ""} for row in ladder_rows()]
    table = read(write_rows(tmp_path / "results.csv", rows))
    assert (table.format, len(table)) == ("canopy", 24)
    assert table.numbers["loss"].tolist() == [row["loss"] for row in rows]
    assert table.texts["seed"] == ["03"] * 24
    assert np.isnan(table.numbers["gpu_hours"]).all()
    assert table.others == {"note": ["x"] * 24}


def test_parameters_and_compute_follow_from_their_parts(tmp_path: Path) -> None:
    rows = ladder_rows()
    wanted = [(row.pop("params"), row.pop("flops")) for row in rows]
    table = read(write_rows(tmp_path / "results.csv", rows))
    found = np.stack([table.numbers["params"], table.numbers["flops"]], axis=1)
    np.testing.assert_allclose(found, wanted)


def test_several_files_are_one_table(tmp_path: Path) -> None:
    first = write_rows(tmp_path / "a.csv", ladder_rows("caft"))
    second = write_rows(tmp_path / "b.csv", ladder_rows("clip"))
    table = read_table(f"{first},{second}", "auto", {}, {})
    assert {name: len(group) for name, group in table.groups("method").items()} == {
        "caft": 24,
        "clip": 24,
    }


def test_values_that_are_false_or_missing_are_groups_of_their_own(tmp_path: Path) -> None:
    rows = [
        row | {"flag": bool(i % 2), "tier": (0, 1, None)[i % 3], "none": None}
        for i, row in enumerate(ladder_rows())
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    table = read(tmp_path / "t.parquet")
    for by, groups in (
        ("flag", {"False": 12, "True": 12}),
        ("tier", {"0": 8, "1": 8, "(none)": 8}),
        ("none", {"all": 24}),
    ):
        assert {name: len(group) for name, group in table.groups(by).items()} == groups


def test_numbers_that_are_near_are_groups_of_their_own(tmp_path: Path) -> None:
    rows = [row | {"batch": (1234567, 1234568, "")[i % 3]} for i, row in enumerate(ladder_rows())]
    groups = read(write_rows(tmp_path / "t.csv", rows)).groups("batch")
    assert list(groups) == ["1234567", "1234568", "(none)"]


def test_names_of_columns_may_have_spaces_around_them(tmp_path: Path) -> None:
    rows = [{f" {name} ": value for name, value in row.items()} for row in ladder_rows()]
    table = read(write_rows(tmp_path / "t.csv", rows))
    assert table.numbers["loss"].tolist() == [row["loss"] for row in ladder_rows()]
    assert table.others == {}


def test_a_row_that_stands_there_twice_is_an_error(tmp_path: Path) -> None:
    """It would count twice, and intervals would be narrower than they are."""
    path = write_rows(tmp_path / "a.csv", ladder_rows())
    said = (
        r"a.csv, row 1 \(caft-.*\) and .*a.csv, row 1 \(caft-.*\) are one point \(equal in name, "
    )
    with pytest.raises(UserError, match=said + r".*, as are 23 pairs more; leave one of them out"):
        read_table(f"{path},{path}", "auto", {}, {})
    rows = [row | {"loss": row["loss"] + 1, "ema": 1} for row in ladder_rows()[:1]]
    again = write_rows(tmp_path / "b.csv", rows)
    with pytest.raises(UserError, match="they differ in loss, ema: choose rows with `where`"):
        read_table(f"{path},{again}", "auto", {}, {})
    apart = read_table(f"{path},{again}", "auto", {}, {}, by="ema")
    assert [len(group) for group in apart.groups("ema").values()] == [24, 1]


def test_runs_without_a_name_may_be_alike_but_not_the_same(tmp_path: Path) -> None:
    rows = [{"flops": 1e9, "loss": loss} for loss in (2.0, 2.1)]
    assert len(read(write_rows(tmp_path / "t.csv", rows))) == 2
    with pytest.raises(UserError, match=r"row 1 \(\) and .* row 3 \(\) are one point"):
        read(write_rows(tmp_path / "t.csv", [*rows, rows[0]]))


@pytest.mark.parametrize(
    ("column", "other"), [("epoch", "lr_scheduler"), ("lr_scheduler", "epoch")]
)
def test_rows_of_several_epochs_or_schedules_are_not_mixed(
    tmp_path: Path, column: str, other: str
) -> None:
    rows = comparison_rows()
    path = write_rows(tmp_path / "results.csv", rows)
    where = {other: str(rows[0][other])}
    with pytest.raises(UserError, match=f"2 values of {column} .*as in where.{column}="):
        read(path, where=where)
    assert len(read(path, where=where | {column: f"={column}"})) == 4  # all, if somebody wants


def test_what_is_no_figure_is_a_gap_where_nothing_needs_it(tmp_path: Path) -> None:
    rows = one_row_with(params="NA", loss="n/a", batch="4k", lr="None", gpu_hours="inf")
    path = write_rows(tmp_path / "t.csv", [{"batch": 1, "lr": 1, "gpu_hours": 1} | r for r in rows])
    table = read(path)
    assert all(np.isnan(table.numbers[n][4]) for n in ("params", "loss", "batch", "gpu_hours"))
    # Gaps that say that they are some need no more words.
    assert {name: told[:30] for name, told in table.unreadable.items()} == {
        "batch": "1 of 24 fields are no such fig",
        "gpu_hours": "1 of 24 fields are no such fig",
    }
    assert "as '4k'" in table.unreadable["batch"]


@pytest.mark.parametrize("status", ["finished", "COMPLETED", "ok", ""])
def test_runs_that_finished(tmp_path: Path, status: str) -> None:
    assert len(read(write_rows(tmp_path / "t.csv", one_row_with(status=status)))) == 24


def test_runs_that_did_not_finish_are_counted(tmp_path: Path) -> None:
    rows = ladder_rows()
    rows[0] |= {"status": "failed", "loss": "nan"}
    rows[1] |= {"status": "failed", "flops": ""}
    rows[2] |= {"status": "running", "loss": ""}
    table = read(write_rows(tmp_path / "results.csv", rows))
    assert len(table) == 21
    assert table.left_out == {"status=failed": 2, "status=running": 1}


def test_runs_that_did_not_finish_are_named(tmp_path: Path) -> None:
    rows = ladder_rows()
    rows[0] |= {"status": "diverged", "loss": ""}
    rows[1] |= {"status": "failed", "name": ""}
    path = write_rows(tmp_path / "results.csv", rows)
    table = read(path)
    assert table.unfinished == {"diverged": [rows[0]["name"]], "failed": [f"{path}, row 2"]}


def test_a_target_that_nobody_asks_for_may_be_anything(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "results.csv", one_row_with(loss="nan", error=0))
    table = read_table(str(path), "auto", {}, {}, needed=["error"])
    assert np.flatnonzero(np.isnan(table.numbers["loss"])).tolist() == [4]
    assert table.numbers["error"][4] == 0
    with pytest.raises(UserError, match="loss is nan"):
        read_table(str(path), "auto", {}, {}, needed=["loss"])


@pytest.mark.parametrize("suffix", ["csv.gz", "parquet"])
def test_a_file_that_is_cut_off(tmp_path: Path, suffix: str) -> None:
    rows = ladder_rows()
    path = tmp_path / f"results.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = write_rows(tmp_path / "results.csv", rows).read_bytes()
        path.write_bytes(gzip.compress(text))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"results\.{suffix} is no table: "):
        read(path)


def openclip_rows() -> list[dict[str, Any]]:
    """The header of zeroshot_results.csv of LAION-AI/scaling-laws-openclip."""
    return [
        {
            "arch": "ViT-B-32",
            "samples_seen": 3e9 * i,
            "gmacs_total": 7.4 * 3e9 * i,
            "gmacs": 7.4,
            "upstream_dataset": "LAION-2B",
            "downstream_dataset": dataset,
            "acc1": accuracy,
            "acc5": "",
            "mean_per_class_recall": "",
            "image_retrieval_recall@5": recall,
            "text_retrieval_recall@5": recall,
            "mean_average_precision": "",
            "task": "zeroshot_classification",
            "samples_seen_pretty": f"{3 * i}B",
            "name": f"Model-B-32_{i}",
        }
        for i in (1, 2, 3)
        for dataset, accuracy, recall in (
            ("imagenet1k", 0.5 + 0.05 * i, ""),
            ("mscoco_captions", "", 0.4 + 0.1 * i),
        )
    ]


def test_table_of_the_openclip_scaling_laws(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "zeroshot_results.csv", openclip_rows())
    table = read(path, where={"downstream_dataset": "imagenet1k"})
    assert table.format == "openclip"
    np.testing.assert_allclose(table.numbers["error"], [0.45, 0.4, 0.35])
    # Training is three times the forward pass, a multiply-accumulate two FLOPs.
    np.testing.assert_allclose(table.numbers["flops"], 6 * 7.4e9 * 3e9 * np.array([1, 2, 3]))
    assert table.numbers["flops_per_sample"].tolist() == pytest.approx([6 * 7.4e9] * 3)
    assert table.texts["model"] == ["ViT-B-32"] * 3
    assert table.left_out == {"another where": 3}
    assert table.others["samples_seen_pretty"] == ["3B", "6B", "9B"]
    retrieval = read(
        path,
        columns={"error": "1 - image_retrieval_recall@5"},
        where={"downstream_dataset": "mscoco_captions"},
    )
    np.testing.assert_allclose(retrieval.numbers["error"], [0.5, 0.4, 0.3])


def test_rows_of_several_tests_are_not_mixed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "zeroshot_results.csv", openclip_rows())
    with pytest.raises(UserError, match=r"2 values of downstream_dataset \(imagenet1k, mscoco"):
        read(path)


def comparison_rows() -> list[dict[str, Any]]:
    """Columns of the results of LAION-AI/scaling-laws-for-comparison (openMaMMUT and others)."""
    return [
        {
            "name": f"mammut_ViT-S-32_{samples:g}_{schedule}_{epoch}",
            "model": "mammut_ViT-S-32",
            "namespace": "mammut",
            "mparams": 85.62,
            "image_mparams": 22.64,
            "text_mparams": 62.83,
            "gflops": 13.91,
            "gflops_total": 13.91 * samples,
            "total_samples_seen": samples,
            "pretrain_dataset": "datacomp_1b",
            "downstream_dataset": "imagenet1k",
            "lr_scheduler": schedule,
            "epoch": epoch,
            "total_epochs": 2,
            "global_batch_size": 4096,
            "acc1": 0.1 + samples / 1e8,
            "contrastive_loss": "" if schedule == "const" else 3.0,
        }
        for samples in (1.28e6, 3e6)
        for schedule in ("cosine", "const")
        for epoch in (1, 2)
    ]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_table_of_the_scaling_laws_for_comparison(tmp_path: Path, suffix: str) -> None:
    rows = comparison_rows()
    path = write_rows(tmp_path / "results.csv", rows)
    if suffix == "csv.gz":
        compressed = tmp_path / "results.csv.gz"
        compressed.write_bytes(gzip.compress(path.read_bytes()))
        path = compressed
    elif suffix == "parquet":
        for row in rows:
            row["contrastive_loss"] = row["contrastive_loss"] or None
        path = tmp_path / "results.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
    table = read(path, where={"lr_scheduler": "cosine", "epoch": "=total_epochs"})
    assert (table.format, len(table)) == ("comparison", 2)
    np.testing.assert_allclose(table.numbers["flops"], 3 * 13.91e9 * np.array([1.28e6, 3e6]))
    np.testing.assert_allclose(table.numbers["params"], 85.62e6)
    np.testing.assert_allclose(table.numbers["params_text"], 62.83e6)
    np.testing.assert_allclose(table.numbers["error"], [1 - 0.1128, 1 - 0.13])
    assert table.numbers["batch"].tolist() == [4096, 4096]
    assert list(table.groups("method")) == ["mammut"]
    gaps = read(path, where={"lr_scheduler": "const", "epoch": "=total_epochs"})
    assert np.isnan(gaps.numbers["loss"]).all()


def test_columns_of_any_table_by_expression(tmp_path: Path) -> None:
    rows = [{"Top-1 %": 40.0 + i, "forward GMACs": 2.0**i, "n": 1e6} for i in range(5)]
    columns = {"error": "1 - Top-1 % * 0.01", "flops": "forward GMACs*6e9", "params": "n"}
    table = read(write_rows(tmp_path / "mine.csv", rows), columns=columns)
    np.testing.assert_allclose(table.numbers["error"], [0.6, 0.59, 0.58, 0.57, 0.56])
    np.testing.assert_allclose(table.numbers["flops"], 6e9 * 2.0 ** np.arange(5))
    assert str(table.mapping["error"]) == "1 - Top-1 % * 0.01"


def one_row_with(**fields: Any) -> list[dict[str, Any]]:
    rows = ladder_rows()
    rows[4] |= fields
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            one_row_with(loss="nan"),
            r"row 5 \(caft-3e\+06-1e\+06\): loss is nan; mark a run that div",
        ),
        (one_row_with(loss="inf"), "loss is inf"),
        (one_row_with(flops=-1e15), r"row 5 .*: flops is -1e\+15; it must be above 0"),
        (one_row_with(flops=""), r"row 5 .*: flops are missing"),
        (one_row_with(flops="3B"), r"row 5 .*: flops is '3B', not a number"),
        (one_row_with(samples=0), "samples is 0; it must be above 0"),
        (one_row_with(loss=0), "loss is 0; it must be above 0: the law is fitted to its log"),
        (one_row_with(error=-0.1), "error is -0.1; it must be above 0"),
        (one_row_with(error=37.5), r"error is 37.5; .*columns.error='error \* 0.01'"),
        ([{"flop": 1, "loss": 2}], "has no column 'flops'; the nearest is 'flop'"),
        ([{"flops": 1, "eror": 2}], "has no column 'error'; the nearest is 'eror'"),
        (
            [row | {"status": "failed"} for row in ladder_rows()],
            "no row has finished, by its status: 24 failed; one that has is done, ok, .*",
        ),
    ],
)
def test_mistakes_in_a_table(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write_rows(tmp_path / "results.csv", rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no table"),
        ("flops,loss\n", "has no rows"),
        ("flops,loss\n1,2,3\n", "is no table: CSV parse error"),
        ("flops,loss,loss\n1,2,3\n", "has two columns 'loss'"),
        ("flops,loss, loss\n1,2,3\n", "has two columns 'loss'"),
        ("flops;loss\n1;2\n", "must be separated by commas, not by semicolons"),
        ("flops;loss\n1;2,5\n", "must be separated by commas, not by semicolons"),
        ("flops\tloss\n1\t2\n", "must be separated by commas, not by tabs"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": {"flop": "flops"}}, "columns.flop: .* did you mean 'flops'"),
        ({"columns": {"error": "1 - acc"}}, "columns.error=1 - acc: .* has no column 'acc'"),
        ({"format_name": "openclip"}, "has no column 'gmacs_total'; .*columns.flops="),
        ({"format_name": "laion"}, "format is 'laion'; choose auto or canopy"),
        ({"where": {"metod": "caft"}}, "where.metod=caft: .* the nearest is 'method'"),
        ({"where": {"method": "siglip"}}, "none of its 24 rows .*; method has caft"),
    ],
)
def test_mistakes_in_what_is_asked(tmp_path: Path, arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write_rows(tmp_path / "results.csv", ladder_rows()), **arguments)
    with pytest.raises(UserError, match="no such table"):
        read(tmp_path / "none.csv")
