"""Workers of `slurm/recaption.sh` on a cluster, and what is looked for in them."""

import contextlib
import json
import sys
import time
from pathlib import Path

import psutil

from recaption.table import read_stats, read_table
from tests.places import CHECKOUT
from tests.recaption.shard_files import Members, picture, to_bytes, write_tar
from tests.slurm.cluster import Cluster

NUM_SHARDS, NUM_IMAGES = 8, 20
ENVIRONMENT = {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
#: Of a cluster of this machine's size; signs of life so often that who has nothing left sees
#: one of each other worker before that is done, too.
OPTIONS = ("--gpus-per-node=0", "--cpus-per-task=1", "--mem-per-cpu=200M")
CLAIMS = ("claims.heartbeat=0.3", "claims.stale_after=6")


def write_slow_shards(folder: Path) -> Path:
    """Tars that take a few seconds each: large pictures, with captions of their own."""
    image = to_bytes(picture(0, (3000, 3000)), quality=30)
    for number in range(NUM_SHARDS):
        members: Members = []
        for index in range(NUM_IMAGES):
            text = json.dumps({"sentences": [f"Picture {index} of {number} shows twelve blocks"]})
            members += [(f"{number}-{index}.jpg", image), (f"{number}-{index}.json", text.encode())]
        write_tar(folder / f"s{number}.tar", members)
    return folder


def submit_array(
    cluster: Cluster, shards: Path, tables: Path, *arguments: str, num_workers: int = 3
) -> list[str]:
    """`sbatch slurm/recaption.sh`; returns a job a worker, whose log is `TABLES-NUMBER.log`."""
    array = cluster.run(
        *("env", *(f"{name}={value}" for name, value in ENVIRONMENT.items())),
        *("sbatch", "--parsable", f"--array=0-{num_workers - 1}", *OPTIONS),
        *(f"--chdir={CHECKOUT}", f"--output={tables}-%a.log", "slurm/recaption.sh"),
        *("engine.name=existing", f"input={shards}", f"output={tables}", *CLAIMS, *arguments),
        "num_decoded_ahead=4",  # no worker runs off with many tars
    )
    return [f"{array}_{number}" for number in range(num_workers)]


def logs(tables: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(tables.parent.glob(f"{tables.name}-*")))


def busy_worker(tables: Path, array_task: str, timeout: float = 90.0) -> psutil.Process:
    """The process of one worker of an array as soon as it has a tar in hand."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        time.sleep(0.02)
        claims = [read_claim(path) for path in tables.glob("work/*.claim.*")]
        for process in (number for number in claims if number > 0):
            with contextlib.suppress(psutil.NoSuchProcess):
                worker = psutil.Process(process)
                if worker.environ().get("SLURM_ARRAY_TASK_ID") == array_task:
                    return worker
    raise AssertionError(f"no worker {array_task} with a claim: {logs(tables)}")


def read_claim(path: Path) -> int:
    """The number of the process that has it; -1 while it is written or given back."""
    try:
        return int(json.loads(path.read_text())["process"])
    except (FileNotFoundError, ValueError):
        return -1


def assert_all_captioned(tables: Path, shards: Path) -> None:
    """Every key of every tar has its row, and nothing is left over."""
    for tar in shards.glob("*.tar"):
        keys = read_table(tables, tar.stem)["key"].to_pylist()
        number = tar.stem.removeprefix("s")
        assert keys == [f"{number}-{index}" for index in range(NUM_IMAGES)]
        stats = read_stats(tables, tar.stem)
        assert stats is not None and stats.status == {"ok": NUM_IMAGES}, stats
    assert not [path.name for path in tables.glob(".*")]
    left = [path.name for path in (tables / "work").iterdir() if not path.name.startswith(".clock")]
    assert not [name for name in left if ".claim." in name or ".journal." in name]


def num_processed(tables: Path) -> int:
    """Images by all workers that told their figures at their end."""
    return sum(
        int(line.split("finished before; ")[1].split(" of ")[0].replace(",", ""))
        for line in logs(tables).splitlines()
        if " images processed now in " in line
    )
