"""The Gaussian process: against scikit-learn's, and its gradient against differences."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from search import curve_gp_sampler
from search.algorithm_config import SamplerConfig
from search.curve_gp_sampler import CurveGpSampler
from search.gaussian_process import GaussianProcess, _misfit
from search.sampler_views import distributions_of
from search.samplers import build_sampler
from search.space import Space
from tests.search.test_samplers import FINITE, search


def seen(num_rows: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Rows of three features, of which the last says nothing."""
    rng = np.random.default_rng(0)
    rows = rng.random((num_rows, 3))
    values = np.sin(5 * rows[:, 0]) + 0.5 * rows[:, 1] + 0.05 * rng.standard_normal(num_rows)
    return rows, (values - values.mean()) / values.std()


def test_it_predicts_what_scikit_learn_predicts() -> None:
    rows, values = seen()
    process = GaussianProcess(3)
    process.fit(rows, values)
    process.learn(rows, values)
    asked = np.random.default_rng(1).random((50, 3))
    means, covariances = process.predict(asked)
    scales, signal, noise = np.exp(process._logs[:3]), np.exp(process._logs[3]), np.exp(process._logs[4])
    kernel = ConstantKernel(signal) * Matern(scales, nu=2.5)
    theirs = GaussianProcessRegressor(kernel, alpha=noise + 1e-6, optimizer=None).fit(rows, values)
    expected, expected_covariances = theirs.predict(asked, return_cov=True)
    np.testing.assert_allclose(means, expected, atol=1e-5)
    np.testing.assert_allclose(covariances, expected_covariances, atol=1e-4)
    # What it found is more probable than what it began with, and says which feature does not matter.
    begun = GaussianProcessRegressor(ConstantKernel(1.0) * Matern([0.8] * 3, nu=2.5), alpha=0.01, optimizer=None)
    assert theirs.log_marginal_likelihood() > begun.fit(rows, values).log_marginal_likelihood() + 1
    assert scales[2] > 2 * scales[0]


def test_draws_scatter_as_predicted() -> None:
    rows, values = seen()
    process = GaussianProcess(3)
    process.learn(rows, values)
    asked = np.repeat(np.random.default_rng(1).random((3, 3)), 2, axis=0)  # pairs that are alike
    rng = np.random.default_rng(2)
    draws = process.draw(asked, rng, draws=4_000)
    means, covariances = process.predict(asked)
    np.testing.assert_allclose(draws.mean(axis=0), means, atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), covariances, atol=0.05)
    np.testing.assert_allclose(draws[:, 0::2], draws[:, 1::2], atol=0.02)  # alike in every draw


def test_the_gradient_is_that_of_differences() -> None:
    rows, values = seen(12)
    for logs in (np.zeros(5), np.array([-1.0, 0.5, 1.0, 0.3, -3.0])):
        _, gradient = _misfit(logs, rows, values)
        differences = approx_fprime(logs, lambda each: _misfit(each, rows, values)[0], 1e-6)
        np.testing.assert_allclose(gradient, differences, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scores", [[0.5] * 40, [0.1, float(2**60), *([0.3] * 38)], list(np.linspace(0, 1, 40))])
def test_whatever_the_scores_candidates_are_rated(scores: list[float]) -> None:
    sampler = sampler_of(search("curve_gp").search_space)
    rows = np.random.default_rng(0).random((40, 4)).astype(np.float32)
    rated = sampler._plausible(rows, np.array(scores), rows[:7], draws=3)
    assert rated.shape == (3, 7) and np.isfinite(rated).all()


def test_of_many_rows_it_keeps_the_best_and_some_others() -> None:
    sampler = sampler_of(search("curve_gp").search_space)
    values = np.random.default_rng(0).permutation(1_000).astype(float)
    first, second = (set(values[sampler._kept(values)]) for _ in range(2))
    assert len(first) == len(second) == curve_gp_sampler._MOST_ROWS
    assert first & second >= set(np.arange(850.0, 1_000.0))
    assert first != second


def test_the_trial_with_all_parameters_absent_but_one_is_proposed_from() -> None:
    """Conditional parameters, categories, and failed trials do not keep it from learning."""
    space = search("curve_gp", FINITE).search_space
    study = optuna.create_study(direction="maximize", sampler=sampler_of(space))
    for index in range(20):
        trial = study.ask()
        params = space.suggest(trial)
        if index % 5 == 4:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        trial.report(0.9 if params["optimizer"] == "sgd" else 0.1, 1)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    late = [trial.params["optimizer"] for trial in study.trials[-8:]]
    assert late.count("sgd") > 5


def sampler_of(space: Space) -> CurveGpSampler:
    sampler = build_sampler(SamplerConfig(name="curve_gp", startup_trials=4), trials_so_far=0, space=space)
    assert isinstance(sampler, CurveGpSampler)
    assert sampler.infer_relative_search_space(None, None) == distributions_of(space)  # type: ignore[arg-type]
    return sampler
