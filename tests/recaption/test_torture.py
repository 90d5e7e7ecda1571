"""Every key of the worst shards gets its row, the run ends, nothing is written elsewhere."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recaption.engine.models import TINY_LVLM
from recaption.shards import open_shard
from recaption.table import ShardStats, read_stats, read_table
from tests.places import CHECKOUT, RECAPTION_PYTHON, needs_recaption_environment
from tests.recaption.torture import LONG, OK, Verdicts, write_torture

#: The engine `existing` reads these of texts; a model needs the picture alone.
OF_TEXTS = ("no-caption", "control-characters")


@dataclass(frozen=True)
class Torture:
    folder: Path
    verdicts: dict[str, Verdicts]

    def caption(self, python: Path | str, output: str, *arguments: str) -> str:
        """Runs the command in a folder of its own; what it prints as warnings."""
        before = self._files()
        command = [str(python), "-m", "recaption", "run", f"input={self.folder}/box/in"]
        command += [f"output={self.folder}/box/{output}", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
        done = subprocess.run(
            command, cwd=self.folder / "box", capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        written = {path for path in self._files() if path not in before}
        inside = self.folder / "box" / output
        assert {path for path in written if path != inside and inside not in path.parents} == set()
        assert all(self._files()[path] == content for path, content in before.items())
        return done.stderr

    def rows(self, output: str, shard: str) -> dict[str, dict[str, Any]]:
        rows = read_table(self.folder / "box" / output, shard).to_pylist()
        by_key = {row["key"]: row for row in rows}
        assert len(by_key) == len(rows)
        return by_key

    def _files(self) -> dict[Path, bytes | None]:
        paths = self.folder.rglob("*")
        return {path: path.read_bytes() if path.is_file() else None for path in paths}


@pytest.fixture(scope="module")
def torture(tmp_path_factory: pytest.TempPathFactory) -> Torture:
    folder = tmp_path_factory.mktemp("torture")
    for place in (folder, folder / "box", folder / "outside"):
        place.mkdir(exist_ok=True)
        (place / "sentinel").write_text("untouched")
    return Torture(folder, write_torture(folder / "box/in", folder / "outside"))


@pytest.fixture(scope="module")
def existing(torture: Torture) -> str:
    return torture.caption(sys.executable, "existing", "engine.name=existing")


def code_of(row: dict[str, Any]) -> str:
    return OK if row["status"] == "ok" else row["reason"].split(":")[0]


def stats_of(torture: Torture, shard: str) -> ShardStats:
    stats = read_stats(torture.folder / "box/existing", shard)
    assert stats is not None
    return stats


def test_every_key_has_the_row_that_it_should(torture: Torture, existing: str) -> None:
    for shard, expected in torture.verdicts.items():
        rows = torture.rows("existing", shard)
        assert {key: code_of(row) for key, row in rows.items()} == expected, shard
    assert sum(len(rows) for rows in torture.verdicts.values()) > 140


def test_what_is_odd_but_read_is_counted(torture: Torture, existing: str) -> None:
    notes = stats_of(torture, "pictures").notes
    assert (notes["animated"], notes["icc-profile-unusable"]) == (4, 4)
    notes = stats_of(torture, "texts").notes
    malformed = {"json-malformed": 4, "json-too-large": 1}
    odd = {"text-cut": 1, "text-not-utf8": 2, "alt-text-gives-orders": 1}
    assert notes == odd | malformed
    names = stats_of(torture, "names")
    # A name of Windows that begins with a dot has no key, as in WebDataset.
    assert (names.notes["ignored-cls"], names.notes["ignored-*.jpg"]) == (1, 1)
    reasons = [member["reason"] for member in names.bad_members]
    assert sum(reason.startswith("not a regular file") for reason in reasons) == 8
    assert reasons.count("duplicate key") == 2


def test_the_damage_of_a_tar_is_told(torture: Torture, existing: str) -> None:
    words = {
        "gzipped": "compressed by gzip: unpack it",
        "nothing": "cannot be read as a tar",
        "zeros": "nothing but zeros",
        "page": "cannot be read as a tar",
        "cut": "unexpected end of data",
        "two": "more data behind the end",
        "negative": "a member of -512 bytes",
        "endless": "a member of -512 bytes",
        "large": "unexpected end of data",
        "long_name": "a header of",
        "pax-512": "a member of -512 bytes",
        "pax99999999999": "unexpected end of data",
        "paxmany": "unreadable header",
    }
    for shard in torture.verdicts:
        damage = stats_of(torture, shard).damage
        assert words.get(shard, "None") in str(damage), shard
        assert (f"{shard}.tar: {damage}" in existing) is (damage is not None)


def test_a_sample_that_is_torn_apart_is_one(torture: Torture) -> None:
    with open_shard(torture.folder / "box/in/names.tar") as shard:
        samples = {sample.key: sample for sample in shard.index.samples}
        assert next(iter(samples)) == "split" and LONG in samples
        texts = shard.read_texts(samples["split"])
    assert texts.alt_text == "the text of the first picture"
    assert texts.metadata["sentences"] and not texts.problems


@pytest.mark.slow
@needs_recaption_environment
@pytest.mark.skipif(not (TINY_LVLM / "config.json").exists(), reason=f"no model in {TINY_LVLM}")
def test_a_real_model_captions_all_that_is_left(torture: Torture) -> None:
    torture.caption(RECAPTION_PYTHON, "vllm", "prompts.long.sampling.max_tokens=8")
    for shard, expected in torture.verdicts.items():
        rows = torture.rows("vllm", shard)
        failed = {key: code_of(row) for key, row in rows.items() if row["status"] == "failed"}
        is_bad = {key: code for key, code in expected.items() if code not in (OK, *OF_TEXTS)}
        assert rows.keys() == expected.keys() and failed == is_bad, shard
        assert all(row["num_tokens"] for key, row in rows.items() if key not in failed), shard
