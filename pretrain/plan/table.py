"""A plan for people to read."""

from typing import Any

_GIB = 2**30
_PARTS = ("weights", "gradients", "optimiser", "ema", "activations", "loss", "bucket", "peak")


def print_plan(plan: dict[str, Any]) -> None:
    run = plan["run"]
    recomputed = ", blocks computed again" if run["recompute_blocks"] else ""
    if run["num_micro_batches"] > 1:
        recomputed += f", in {run['num_micro_batches']} micro-batches"
    print(
        f"{run['objective']} on {run['nodes']} x {run['gpus']} ranks, {run['batch_size']:,} images "
        f"a step, {run['num_texts']} texts an image of {run['text_length']} tokens{recomputed}\n"
    )

    print(f"{'parameters':<20}{'M':>12}")
    for name, number in plan["parameters"].items():
        print(f"  {name:<18}{number / 1e6:>12.2f}")

    print(f"\n{'FLOPs a sample':<20}{'G':>12}   1 MAC = 2 FLOPs; 3 x forward, superpixels 1 x")
    for name, number in plan["flops_per_sample"].items():
        note = "   on top of these, to keep less" if name == "again" else ""
        if name != "again" or number:
            print(f"  {name:<18}{number / 1e9:>12.2f}{note}")

    for precision, rows in plan["memory"].items():
        parts = [name for name in _PARTS if any(row[name] for row in rows)]
        note = "fp32 weights are the masters" if precision == "bf16" else ""
        print(f"\nmemory of a rank in {precision}, GiB   {note}".rstrip())
        print("  " + f"{'ZeRO stage':<12}" + "".join(f"{name:>12}" for name in parts))
        for row in rows:
            figures = "".join(f"{row[name] / _GIB:>12.3f}" for name in parts)
            print(f"  {row['stage']:<12}{figures}{_mark(plan, precision, row)}")
    print(
        "  At the peak not all parts live; each lives at its own moment. Not counted: what the\n"
        "  libraries and the allocator keep for themselves (on GPUs leave a few GiB free); and\n"
        "  in the host's memory loader workers, waiting batches, checkpoints being written."
    )

    sent = plan["sent_bytes"]
    print(f"\n{'sent by a rank a step':<24}{'GB':>8}")
    for stage, size in enumerate(sent["weights_and_gradients"]):
        chosen = "  <-" if stage == run["zero_stage"] else ""
        print(f"  {f'gradients, stage {stage}':<22}{size / 1e9:>8.3f}{chosen}")
    print(f"  {'features and theirs':<22}{sent['features'] / 1e9:>8.3f}")

    print()
    _print_time(plan)


def _mark(plan: dict[str, Any], precision: str, row: dict[str, float]) -> str:
    run, memory = plan["run"], plan["accelerator_memory"]
    too_large = "  too large" if memory is not None and row["peak"] > memory else ""
    is_configured = (precision, row["stage"]) == (run["precision"], run["zero_stage"])
    return ("  <-" if is_configured else "") + too_large


def _print_time(plan: dict[str, Any]) -> None:
    time = plan["time"]
    if time is None:
        print("no times: give accelerator=h100 or peak_flops=... (operations a second of a rank)")
        return
    print(
        f"a step, supposed to reach mfu={time['share']:g} of {time['peak_flops'] / 1e12:,.1f} "
        "TFLOP/s a rank: an assumption"
    )
    print(f"  {'computing':<22}{time['computing_seconds']:>12.4f} s")
    if time["sending_seconds"]:
        print(f"  {'sending, not hidden':<22}{time['sending_seconds']:>12.4f} s")
    else:
        print(f"  {'sending':<22}{'not counted':>12}   give bandwidth=... (bytes a second a rank)")
    print(f"  {'images a second':<22}{time['samples_per_second']:>12,.0f}")
    print(f"  {'MFU':<22}{time['mfu']:>12.1%}   needed FLOPs only, of the whole step")
    num_samples = plan["run"]["num_samples"]
    print(
        f"  {num_samples:,} samples: {time['days']:,.2f} days, {time['gpu_hours']:,.0f} GPU-hours"
    )
