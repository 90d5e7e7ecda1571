"""How many bytes are in tensors, as torch's allocator tells its profiler."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def peak_tensor_bytes(run: Callable[[], object]) -> int:
    """The most bytes in tensors at any moment of ``run()``, beyond those that lived before it.

    On the CPU. What an operation allocates for itself and frees again counts too, but for what
    collectives do: gloo's threads free it, which the profiler does not see.
    """
    os.environ["KINETO_LOG_LEVEL"] = "99"  # torch's profiler mourns the absence of a GPU
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    collectives: dict[int, list[tuple[float, float]]] = {}
    for event in events:
        if str(event.get("name")).startswith("c10d::") and "dur" in event:
            span = (event["ts"], event["ts"] + event["dur"])
            collectives.setdefault(event["tid"], []).append(span)
    memory = [event for event in events if event.get("name") == "[memory]"]
    memory.sort(key=lambda event: event["ts"])  # events of one time in the order they came
    live = peak = 0
    left_out: set[int] = set()  # addresses
    for event in memory:
        address, size = event["args"]["Addr"], event["args"]["Bytes"]
        spans = collectives.get(event["tid"], [])
        if size > 0 and any(start <= event["ts"] <= end for start, end in spans):
            left_out.add(address)
            continue
        if address in left_out:
            left_out.remove(address)
            if size < 0:
                continue
        live += size
        peak = max(peak, live)
    return peak
