"""Two methods whose difference is known."""

from dataclasses import replace

import numpy as np
import pytest

from recaption.common.errors import UserError
from tests.tools.scaling_laws.synthetic import CURVE, curve, noise
from tools.scaling_laws.bootstrap import bootstrap_law
from tools.scaling_laws.compare import Comparison, Contender, compare_laws
from tools.scaling_laws.fit import _compare
from tools.scaling_laws.fitting import FittedLaw, fit_law
from tools.scaling_laws.group import FitConfig
from tools.scaling_laws.laws import ComputeLaw, Floats

LAW = ComputeLaw(has_offset=False)
RANGE = (1e15, 1e19)
FLOPS = np.geomspace(*RANGE, 20)[:, None]
PLAIN = {**CURVE, "C0": 0.0}


def fit(seed: int, **changes: float) -> FittedLaw:
    values = curve(FLOPS[:, 0], **{**PLAIN, **changes}) * noise(20, 0.01, seed)
    names = np.arange(20).astype(str)
    fitted = fit_law(LAW, FLOPS, values, 1e-3)
    return bootstrap_law(fitted, FLOPS, values, names, 1e-3, 60, [seed])


def compare(first: FittedLaw, second: FittedLaw) -> Comparison:
    return compare_laws(
        contender("caft", first, RANGE),
        contender("clip", second, (1e14, 1e18)),
        "loss",
        "curve",
        0.9,
    )


def contender(name: str, fitted: FittedLaw, flops: tuple[float, float]) -> Contender:
    return Contender(name, lambda at: fitted.predict_all(at[:, None]), flops)


def test_a_method_that_is_better_by_a_tenth() -> None:
    better = {"E": 0.9 * PLAIN["E"], "A": 0.9 * PLAIN["A"]}
    comparison = compare(fit(1, **better), fit(2))
    assert (comparison.flops[0], comparison.flops[-1]) == pytest.approx((1e15, 1e18))
    assert comparison.mean_ratio.low <= 0.9 <= comparison.mean_ratio.high
    assert comparison.mean_ratio.high < 1
    assert comparison.mean_probability == 1
    assert comparison.trend.low < 1 < comparison.trend.high
    assert comparison.crossings == []
    for ratio, difference, first, second in zip(
        comparison.ratio,
        comparison.difference,
        comparison.first_value,
        comparison.second_value,
        strict=True,
    ):
        assert ratio.value == pytest.approx(first / second)
        assert difference.value == pytest.approx(first - second)
        assert difference.high < 0
    # What the first reaches takes the second as much more as its law says, if within its range.
    assert 0 < len(comparison.multipliers) < len(comparison.flops)
    for each in comparison.multipliers:
        wanted = 0.9 * curve(each.flops, **PLAIN)
        needed = (PLAIN["A"] / (wanted - PLAIN["E"])) ** (1 / PLAIN["b"])
        assert needed < 1.5e18
        assert each.times.value == pytest.approx(needed / each.flops, rel=0.3)
        assert each.times.low is not None and 1 < each.times.low < each.times.value
    assert comparison.multipliers[-1].times.high is None  # beyond what it was fitted to
    # The other way round it is worse by as much.
    turned = compare(fit(2), fit(1, **better))
    assert turned.mean_probability == 0
    assert turned.mean_ratio.value == pytest.approx(1 / comparison.mean_ratio.value)


def test_methods_that_are_the_same_are_not_told_apart() -> None:
    comparison = compare(fit(1), fit(2))
    assert comparison.mean_ratio.low < 1 < comparison.mean_ratio.high
    assert 0.02 < comparison.mean_probability < 0.98


def test_methods_that_cross() -> None:
    """The first is worse at small compute and falls faster: equal at 1e17."""
    steeper = {"b": 0.3, "A": 0.8 * 1e17**0.3}
    comparison = compare(fit(1, **steeper), fit(2))
    assert [crossing.better_below for crossing in comparison.crossings] == ["clip"]
    crossing = comparison.crossings[0]
    assert crossing.flops.low <= 1e17 <= crossing.flops.high
    assert crossing.flops.high / crossing.flops.low < 10
    assert crossing.share > 0.9
    assert comparison.trend_probability > 0.95
    assert comparison.probability[0] < 0.05 < 0.95 < comparison.probability[-1]


def test_a_crossing_that_no_resampling_has_is_without_an_interval() -> None:
    """The fits cross; their replicates are of methods that do not."""
    at = np.geomspace(*RANGE, 41)
    crossing, above = (at / 1e17) ** 0.1, np.full_like(at, 2.0)
    first = Contender("caft", lambda _: np.stack([crossing, above, above]), RANGE)
    second = Contender("clip", lambda at: np.ones((3, len(at))), RANGE)
    comparison = compare_laws(first, second, "loss", "curve", 0.9)
    (found,) = comparison.crossings
    assert found.flops.value == pytest.approx(1e17, rel=0.01)
    assert (found.flops.low, found.flops.high, found.share) == (None, None, 0)


def test_errors_that_are_both_1_do_not_cross() -> None:
    """Neither law says more than 1: there the ratio is 1, and nobody needs more compute."""
    values = np.minimum(1.2 * (np.geomspace(*RANGE, 41) / RANGE[0]) ** -0.1, 1)
    worse = np.minimum(1.1 * values, 1)

    def contender_of(name: str, error: Floats) -> Contender:
        places = np.geomspace(*RANGE, 41)
        return Contender(name, lambda at: np.tile(np.interp(at, places, error), (3, 1)), RANGE)

    comparison = compare_laws(
        contender_of("caft", values), contender_of("clip", worse), "error", "curve", 0.9
    )
    assert comparison.ratio[0].value == 1 and comparison.ratio[-1].value < 1
    assert comparison.crossings == []
    told = [each.flops for each in comparison.multipliers]
    assert told and all(flops > 1.2**10 * RANGE[0] for flops in told)


def test_ranges_that_do_not_meet() -> None:
    fitted = fit(1)
    first, second = (
        contender(name, fitted, flops)
        for name, flops in (("caft", (1e15, 1e16)), ("clip", (1e17, 1e18)))
    )
    with pytest.raises(UserError, match=r"caft from 1e\+15 to 1e\+16 and clip from 1e\+17 to"):
        compare_laws(first, second, "loss", "curve", 0.9)


@pytest.mark.parametrize(("with_joint", "law"), [(True, "joint"), (False, None)])
def test_the_best_at_each_compute_is_not_compared_with_all_runs(
    with_joint: bool, law: str | None
) -> None:
    fitted = fit(1)
    contenders = {}
    for name, points in (("caft", "front"), ("clip", "all")):
        of_all = contender(name, fitted, RANGE)
        laws = {"curve": replace(of_all, points=frozenset({points}))}
        contenders[name, "loss"] = laws | ({"joint": of_all} if with_joint else {})
    comparisons, not_compared = _compare(FitConfig(), ["caft", "clip"], ["loss"], contenders)
    assert [comparison.law for comparison in comparisons] == ([law] if law else [])
    assert ("fit_on=all makes them alike" in " ".join(not_compared.values())) is (law is None)
