"""How many bytes are in tensors, as torch's allocator tells its profiler."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def peak_tensor_bytes(run: Callable[[], object]) -> int:
    """The most bytes in tensors at any moment of ``run()``, beyond those that lived before it.

    On the CPU. What an operation allocates for itself and frees again counts too.
    """
    os.environ["KINETO_LOG_LEVEL"] = "99"  # torch's profiler mourns the absence of a GPU
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]"]
    memory.sort(key=lambda event: event["ts"])  # events of one time in the order they came
    totals = [event["args"]["Total Allocated"] for event in memory]
    return int(max(totals) - (totals[0] - memory[0]["args"]["Bytes"]))
