"""A fit as text, to be read in a terminal."""

from collections.abc import Iterator

from tools.scaling_laws.bootstrap import Interval
from tools.scaling_laws.compare import Comparison
from tools.scaling_laws.results import FitResult, GroupFit, LawFit


def format_result(result: FitResult) -> str:
    return "\n".join(_lines(result))


def _lines(result: FitResult) -> Iterator[str]:
    yield f"{result.table}: {result.num_rows} points, columns as in {result.format} tables"
    for reason, count in result.left_out.items():
        yield f"  left out: {count} rows, {reason}"
    level = result.settings["level"]
    yield f"intervals: {level:.0%}, of {result.settings['num_replicates']} resamplings of the runs"
    for group in result.groups:
        yield from _group_lines(group)
    for comparison in result.comparisons:
        yield from _comparison_lines(comparison)
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
    if law.compute_per_sample and law.optimal_exponents:
        k = law.compute_per_sample
        yield f"    C = k N D with k = {k.k:.3g} (largest over smallest {k.spread:.2f})"
        size, samples = (law.optimal_exponents[name] for name in ("size", "samples"))
        yield f"    compute-optimal: N as C^{_show(size)}, D as C^{_show(samples)}"
    for best in law.optima:
        yield (
            f"      C {best.flops:.3g}: N {_show(best.size)}, D {_show(best.samples)}, "
            f"{target} {_show(best.value)}"
        )


def _comparison_lines(comparison: Comparison) -> Iterator[str]:
    c = comparison
    yield f"\n{c.first} against {c.second}, {c.target} at equal compute, by the {c.law} law"
    yield f"  (a ratio below 1: {c.first} is better; P: the share of resampled fits that say so)"
    for i in (0, len(c.flops) // 2, len(c.flops) - 1):
        yield (
            f"  C {c.flops[i]:.3g}: {c.first_value[i]:.4g} against {c.second_value[i]:.4g}, "
            f"ratio {_show(c.ratio[i])}, P {c.probability[i]:.2f}"
        )
    yield f"  over the whole range: ratio {_show(c.mean_ratio)}, P {c.mean_probability:.2f}"
    yield (
        f"  ratio at the end over the beginning: {_show(c.trend)}; P that {c.first} scales "
        f"better {c.trend_probability:.2f}"
    )
    for crossing in c.crossings:
        yield (
            f"  they cross at C {_show(crossing.flops)}, {crossing.better_below} is better below; "
            f"{crossing.share:.0%} of the resampled fits cross there"
        )
    if not c.crossings:
        yield "  they do not cross in this range"


def _show(interval: Interval) -> str:
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"
