"""Takes claims as a worker would, in a process of its own; run by the tests.

``python claimer.py FOLDER NUM_SHARDS [hold]`` takes what it can of ``s0 .. sN``, prints the names
of those that it got, and gives them back at the end of its input, or waits to be killed.
"""

import json
import sys
import time
from pathlib import Path

from recaption.work.claims import ClaimConfig, Claims


def main() -> None:
    folder, num_shards, hold = Path(sys.argv[1]), int(sys.argv[2]), "hold" in sys.argv
    with Claims(folder, ClaimConfig(heartbeat=0.2, stale_after=3.0)) as claims:
        (folder / f"ready.{claims.worker}").touch()
        while not (folder / "go").exists():
            time.sleep(0.001)
        taken = [claim for n in range(num_shards) if (claim := claims.take(f"s{n}")) is not None]
        print(json.dumps([claim.shard for claim in taken]), flush=True)
        if hold:
            time.sleep(600)
        sys.stdin.read()
        print(json.dumps([claim.shard for claim in taken if claims.is_mine(claim)]), flush=True)


if __name__ == "__main__":
    main()
