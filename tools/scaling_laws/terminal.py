"""A fit as text, to be read in a terminal."""

from collections.abc import Iterator

from tools.scaling_laws.bootstrap import Interval
from tools.scaling_laws.compare import Comparison, OpenInterval, first_middle_last
from tools.scaling_laws.matched import Matched
from tools.scaling_laws.results import FitResult, GroupFit, LawFit


def format_result(result: FitResult) -> str:
    return "\n".join(_lines(result))


def _lines(result: FitResult) -> Iterator[str]:
    yield f"{result.table}: {result.num_rows} points, columns as in {result.format} tables"
    for reason, count in result.left_out.items():
        yield f"  left out: {count} rows, {reason}"
    for status, names in result.unfinished.items():
        yield f"  {status}: {', '.join(names)}"
    for column, told in result.unreadable.items():
        yield f"  {column}: {told}"
    level = result.settings["level"]
    yield (
        f"intervals: {level:.0%}, of {result.settings['num_replicates']} resamplings of the runs, "
        "or simulations where a note says so"
    )
    for group in result.groups:
        yield from _group_lines(group)
    for comparison in result.comparisons:
        yield from _comparison_lines(comparison)
    for matched in result.matched:
        yield from _matched_lines(matched)
    for pair, reason in result.not_compared.items():
        yield f"\n{pair}: not compared: {reason}"


def _group_lines(group: GroupFit) -> Iterator[str]:
    front = sum(point.on_front for point in group.points)
    held_out = sum(point.held_out for point in group.points)
    yield ""
    yield (
        f"{group.group}, {group.target}: {len(group.points)} points, {front} on the front, "
        f"{held_out} held out"
    )
    for law in group.laws:
        yield from _law_lines(law, group.target)
    for law_name, reason in group.not_fitted.items():
        yield f"  {law_name}: not fitted: {reason}"


def _law_lines(law: LawFit, target: str) -> Iterator[str]:
    left = "C" if law.law == "curve" else "N, D"
    where = "" if law.law == "curve" else f"   N = {law.inputs[0]}, D = {law.inputs[1]}"
    yield (
        f"  {target}({left}) = {law.formula}{where}   {law.num_points} points, "
        f"scatter {law.rms:.2%}"
    )
    for name, value in law.parameters.items():
        yield f"    {name:>3}  {_show(value)}"
    for note in law.notes:
        yield f"    note: {note}"
    for held_out in law.held_out:
        yield (
            f"    held out {held_out.name} at {held_out.flops:.3g}: {held_out.measured:.4g}, "
            f"predicted {_show(held_out.predicted)}, {held_out.relative_error:+.1%}, "
            f"{'inside' if held_out.is_inside else 'OUTSIDE'}"
        )
    if k := law.compute_per_sample:
        yield f"    C = k N D with k = {k.k:.3g} (largest over smallest {k.spread:.2f})"
    if law.optimal_exponents:
        size, samples = (law.optimal_exponents[name] for name in ("size", "samples"))
        yield f"    compute-optimal: N as C^{_show(size)}, D as C^{_show(samples)}"
    for best in law.optima:
        yield (
            f"      C {best.flops:.3g}: N {_show(best.size)}, D {_show(best.samples)}, "
            f"{target} {_show(best.value)}{' (outside what was trained)' if best.untried else ''}"
        )


def _comparison_lines(comparison: Comparison) -> Iterator[str]:
    c = comparison
    yield f"\n{c.first} against {c.second}, {c.target} at equal compute, by the {c.law} law"
    yield f"  (a ratio below 1: {c.first} is better; P: the share of replicates that say so)"
    if c.target == "loss":
        yield "  (the losses of two objectives are different quantities: compare those of one)"
    for i in first_middle_last(len(c.flops)):
        yield (
            f"  C {c.flops[i]:.3g}: {c.first_value[i]:.4g} against {c.second_value[i]:.4g}, "
            f"ratio {_show(c.ratio[i])}, P {c.probability[i]:.2f}"
        )
    yield f"  over the whole range: ratio {_show(c.mean_ratio)}, P {c.mean_probability:.2f}"
    yield (
        f"  ratio at the end over the beginning: {_show(c.trend)}; P that {c.first} scales "
        f"better {c.trend_probability:.2f}"
    )
    yield from _multiplier_lines(c)
    for crossing in c.crossings:
        yield (
            f"  they cross at C {_show_open(crossing.flops, '?', '?')}, {crossing.better_below} is "
            f"better below; {crossing.share:.0%} of the replicates cross there"
        )
    if not c.crossings:
        yield "  they do not cross in this range"
    for note in c.notes:
        yield f"  note: {note}"


def _matched_lines(matched: Matched) -> Iterator[str]:
    m = matched
    yield f"\n{m.first} against {m.second}, {m.target} of runs of one size and length, by no law"
    yield (
        f"  ({m.num_pairs} pairs of trunks, intervals of Student's t; FLOPs of {m.first} are "
        f"{m.flops_ratio:.3g} times those of {m.second})"
    )
    if m.num_unmatched:
        yield f"  {m.num_unmatched} runs have no like and are not in it"
    for length in m.lengths:
        yield f"  {length.samples:,.0f} samples: ratio {_show(length.ratio)}"
    yield f"  over all lengths: ratio {_show(m.ratio)}"
    yield (
        f"  ratio at the most samples over the fewest: {_show(m.trend)}; P that {m.first} gains "
        f"more {m.trend_probability:.3f}"
    )


def _multiplier_lines(comparison: Comparison) -> Iterator[str]:
    c = comparison
    for i in first_middle_last(len(c.multipliers)):
        each = c.multipliers[i]
        yield (
            f"  for what {c.first} reaches with C {each.flops:.3g}, {c.second} needs "
            f"{_show_open(each.times, 'below its range', 'above it')} times as much"
        )
    if not c.multipliers:
        yield f"  nothing that {c.first} reaches is within what {c.second} was fitted to"


def _show(interval: Interval) -> str:
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


def _show_open(interval: OpenInterval, below: str, above: str) -> str:
    low = below if interval.low is None else f"{interval.low:.4g}"
    high = above if interval.high is None else f"{interval.high:.4g}"
    return f"{interval.value:.4g} [{low}, {high}]"
