import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tests.tools.scaling_laws.synthetic import JOINT, joint, ladder
from tools.scaling_laws.fitting import fit_law
from tools.scaling_laws.front import (
    compute_optimal,
    compute_per_sample,
    optimal_exponents,
    pareto_front,
)
from tools.scaling_laws.laws import JointLaw


def test_front_is_the_best_of_each_bin_unless_a_cheaper_is_as_good() -> None:
    flops = np.array([1.0, 2.0, 15.0, 20.0, 150.0, 1500.0])
    values = np.array([0.9, 0.8, 0.7, 0.75, 0.72, 0.5])
    assert pareto_front(flops, values, 1).tolist() == [False, True, True, False, False, True]
    # Each point has a bin of its own: only what a cheaper one beats is left out.
    assert pareto_front(flops, values, 100).tolist() == [True, True, True, False, False, True]


def test_front_does_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    flops, values = 10 ** rng.uniform(0, 4, 50), rng.uniform(0, 1, 50)
    order = rng.permutation(50)
    front = pareto_front(flops, values, 4)
    np.testing.assert_array_equal(pareto_front(flops[order], values[order], 4), front[order])


def test_optimum_is_what_a_search_finds() -> None:
    places, k, budget = ladder(), 7.0, 1e19
    fitted = fit_law(JointLaw(), places, joint(*places.T, **JOINT), 1e-3)
    fitted = type(fitted)(**{**vars(fitted), "replicates": fitted.theta[None]})
    best = compute_optimal(fitted, k, places, budget, 0.9)
    parameters = {name: float(value) for name, value in fitted.parameters().items()}
    searched = minimize_scalar(
        lambda log_size: joint(np.exp(log_size), budget / k / np.exp(log_size), **parameters),
        bounds=(10, 30),
        method="bounded",
        options={"xatol": 1e-8},
    )
    assert best.size.value == pytest.approx(np.exp(searched.x), rel=1e-3)
    assert best.size.value * best.samples.value * k == pytest.approx(budget)
    assert best.value.value == pytest.approx(searched.fun, rel=1e-9)
    # The optimal size of ten times the budget grows by the exponent.
    larger = compute_optimal(fitted, k, places, 10 * budget, 0.9)
    grown = np.log10(larger.size.value / best.size.value)
    assert grown == pytest.approx(optimal_exponents(fitted, 0.9)["size"].value)


def test_compute_per_sample_tells_its_spread() -> None:
    sizes, samples = np.array([1.0, 2.0, 4.0]), np.array([10.0, 10.0, 10.0])
    found = compute_per_sample(6 * sizes * samples * [1, 1, 2], sizes, samples)
    assert (found.k, found.spread) == (6, 2)
