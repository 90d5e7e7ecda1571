"""Packs in two passes: tars to sorted pieces, and these to shuffled MDS shards.

Everything lies in a work folder until it is whole; a pack that was killed goes on from it. What is
written does not depend on the number of processes, nor on how often it was interrupted.
"""

import contextlib
import fcntl
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from recaption.common.config import UserError, write_config
from recaption.common.files import read_json, sync
from recaption.pack import remote
from recaption.pack.buckets import SplitCounts, bucket_name, read_counts, write_bucket
from recaption.pack.card import make_card, write_card
from recaption.pack.config import PackConfig
from recaption.pack.inputs import Tar, find_tars
from recaption.pack.manifest import write_manifests
from recaption.pack.pieces import PieceReport, is_done, piece_identity, read_report, write_piece
from recaption.pack.plan import Plan, make_plan
from recaption.pack.pool import run_tasks
from recaption.pack.summary import MARKER, PackSummary, read_finished, write_markers
from recaption.pack.tables import TableFolder, check_tables, find_tables

#: What lies in the work folder.
FOLDERS = ("tables", "scratch", "pieces", "plan", "buckets", "output")


def pack(config: PackConfig) -> PackSummary:
    """Writes the training shards of ``config``, or finds them finished.

    Raises:
        UserError: streaming is not installed, no shards, unfinished tables, no usable sample, a
            remote file that cannot be reached, or an output folder that holds something else.
    """
    started = time.monotonic()
    work = _work_folder(config)
    tars = find_tars(config.shards)
    folders = find_tables(config.tables, work)
    hashes, sources = check_tables(folders, [tar.name for tar in tars])
    finished = read_finished(config, work, tars, hashes)
    if finished is not None:
        _clean(work)
        return finished
    if importlib.util.find_spec("streaming") is None:
        raise UserError(
            "pack needs mosaicml-streaming, which this environment does not have: run "
            "`make .venv-train/.installed` and use .venv-train/bin/python"
        )
    for name in FOLDERS:
        (work / name).mkdir(parents=True, exist_ok=True)
    with _locked(work):
        for path in [*(work / "scratch").iterdir(), *work.glob("*/.*.tmp")]:
            path.unlink()  # of processes that were killed
        summary = PackSummary(config.output, num_tars=len(tars))
        reports = _write_pieces(config, folders, work, tars, hashes, summary)
        plan = make_plan(config, work, reports)
        _check_splits(config, work, plan)
        counts = _write_buckets(config, work, plan, summary)
        output = work / "output"
        _merge_indexes(config, output, plan)
        summary.reasons = write_manifests(config, work, plan, output)
        summary.num_quarantined = summary.reasons.total()
        summary.add_samples(counts)
        card = make_card(
            *(config, counts, summary.reasons, summary.notes),
            *(sources, len(tars), plan.num_twins),
        )
        write_card(card, output)
        write_config(config, output / "config.yaml")
        summary.seconds = round(time.monotonic() - started, 3)
        inputs = [asdict(report.source) for report in reports.values()]
        write_markers(config, output, summary, counts, {"tars": inputs, "tables": hashes})
        _hand_over(config, output)
    _clean(work)
    return summary


def _work_folder(config: PackConfig) -> Path:
    if config.work is not None:
        return Path(config.work)
    if remote.is_remote(config.output):
        raise UserError(
            "output is remote: give work=FOLDER, on a disk that holds the images once, or twice "
            "where they become larger"
        )
    output = Path(config.output)
    return output.with_name(f"{output.name}.partial")


def _clean(work: Path) -> None:
    """Takes away what pack has made in it, and the folder if that was all."""
    for name in FOLDERS:
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "lock").unlink(missing_ok=True)
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Two packs would write the same files."""
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another pack is at work in {work}: wait for it, or end it") from None
        yield


def _write_pieces(
    config: PackConfig,
    folders: list[TableFolder],
    work: Path,
    tars: list[Tar],
    hashes: dict[str, list[str]],
    summary: PackSummary,
) -> dict[str, PieceReport]:
    """Makes the pieces that are missing. The reports come without their lists of samples."""
    tasks = [(tar, piece_identity(config, folders, hashes[tar.name])) for tar in tars]
    pending = [task for task in tasks if not is_done(work, *task)]
    summary.num_resumed_tars = len(tars) - len(pending)
    write = partial(write_piece, config, folders, work)
    num_bytes = sum(tar.size for tar, _ in pending)
    for warnings in run_tasks(write, pending, config.num_workers, "read", num_bytes):
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
    reports = {}
    for tar in tars:
        report = read_report(work, tar.name)
        summary.reasons.update(reason.split(":")[0] for _, _, reason in report.quarantine)
        summary.notes.update(report.notes)
        summary.num_damaged_shards += report.is_damaged
        report.quarantine.clear()
        reports[tar.name] = report
    if not sum(report.num_samples for report in reports.values()):
        _clean(work)
        counts = ", ".join(f"{name} {count}" for name, count in sorted(summary.reasons.items()))
        raise UserError(f"{config.shards} gives no usable sample; quarantined: {counts or 'none'}")
    return reports


def _check_splits(config: PackConfig, work: Path, plan: Plan) -> None:
    for split, num_samples in plan.num_samples.items():
        if not num_samples:
            _clean(work)
            raise UserError(
                f"val_share={config.val_share} leaves no sample for {split!r}: use another share"
            )


def _write_buckets(
    config: PackConfig, work: Path, plan: Plan, summary: PackSummary
) -> dict[str, SplitCounts]:
    numbers = range(plan.num_buckets)
    counts = [read_counts(work, plan, number) for number in numbers]
    pending = [number for number in numbers if counts[number] is None]
    num_before = sum(c.num_samples for splits in counts if splits for c in splits.values())
    write = partial(write_bucket, config, work, plan)
    num_samples = sum(plan.num_samples.values()) - num_before
    for number in run_tasks(write, pending, config.num_workers, "write", num_images=num_samples):
        counts[number] = read_counts(work, plan, number)
    totals = {split: SplitCounts() for split in config.splits}
    for splits in counts:
        assert splits is not None
        for split, count in splits.items():
            totals[split].add(count)
    return totals


def _merge_indexes(config: PackConfig, output: Path, plan: Plan) -> None:
    """As streaming's ``merge_index``, without its copies and its warnings."""
    for split in config.splits:
        for bucket in (output / split).glob("bucket-*"):
            if int(bucket.name.removeprefix("bucket-")) >= plan.num_buckets:
                shutil.rmtree(bucket)  # of a pack with other settings, which was given up
        shards = []
        for name in map(bucket_name, range(plan.num_buckets)):
            for shard in read_json(output / split / name / "index.json")["shards"]:
                shard["raw_data"]["basename"] = f"{name}/{shard['raw_data']['basename']}"
                shards.append(shard)
        index = json.dumps({"version": 2, "shards": shards}, sort_keys=True)
        (output / split / "index.json").write_text(index)


def _hand_over(config: PackConfig, output: Path) -> None:
    """Under its own name at last: by one rename, or by the marker, uploaded after all else."""
    files = [path for path in sorted(output.rglob("*")) if path.is_file()]
    if remote.is_remote(config.output):
        for path in sorted(files, key=lambda path: path == output / MARKER):
            remote.upload(path, f"{config.output}/{path.relative_to(output).as_posix()}")
        return
    for path in [*files, *(p for p in output.rglob("*") if p.is_dir()), output]:
        sync(path)
    target = Path(config.output)
    target.parent.mkdir(parents=True, exist_ok=True)
    if output.stat().st_dev == target.parent.stat().st_dev:
        output.rename(target)
    else:
        partial_copy = target.with_name(f".{target.name}.copy")
        shutil.rmtree(partial_copy, ignore_errors=True)
        shutil.copytree(output, partial_copy)
        partial_copy.rename(target)
