import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from rasr.evaluation.statistics import bootstrap_interval, sign_test


def test_interval_agrees_with_scipy():
    values = np.random.default_rng(1).normal(25, 2, 40)
    theirs = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=2).confidence_interval
    assert bootstrap_interval(values) == pytest.approx((theirs.low, theirs.high), abs=0.05)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    wide, narrow = bootstrap_interval(values, level=0.99), bootstrap_interval(values, level=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_interval_of_many_is_made_in_blocks():
    values = np.random.default_rng(1).normal(0, 1, 20_000)
    low, high = bootstrap_interval(values, resamples=600)
    assert low < values.mean() < high and high - low == pytest.approx(2 * 1.96 / np.sqrt(20_000), rel=0.2)


def test_interval_of_one_value_is_that_value():
    assert bootstrap_interval([3.0]) == (3.0, 3.0)


@pytest.mark.parametrize(("ups", "downs"), [(26, 4), (3, 3), (0, 5), (7, 6)])
def test_sign_test_agrees_with_scipy(ups, downs):
    differences = [1.0] * ups + [-2.0] * downs + [0.0] * 3
    assert sign_test(differences) == pytest.approx(binomtest(ups, ups + downs).pvalue)


def test_sign_test_without_differences():
    assert sign_test([0.0, 0.0]) == 1.0
