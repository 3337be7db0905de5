"""Intervals of comparisons: they contain the value that is shown, and as often as stated the true one."""

import numpy as np
import pytest

from mlp_dense.reports.making import bootstrap, interval
from mlp_dense.reports.results import Scores, mean_of_classes
from mlp_dense.reports.segmentation import _ious


class Pool:
    """Executor that runs in this process."""

    @staticmethod
    def map(function, values, chunksize=1):
        return map(function, values)


def simulated(images: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Return intersections, predicted and true pixels (images, 3, classes); later classes are rarer."""
    frequency = 0.5 / (1 + 10 * np.arange(classes) / classes)
    true = (rng.random((images, classes)) < frequency) * rng.lognormal(0, 1, (images, classes))
    logits = np.linspace(-0.5, 1.5, classes) + rng.normal(0, 0.5, (images, 1)) + rng.normal(0, 0.7, true.shape)
    hits = true / (1 + np.exp(-logits))
    false = (rng.random(true.shape) < 0.3 * frequency) * rng.lognormal(-1.5, 1, true.shape)
    return np.stack([hits, hits + false, true], 1)


def mean_interval(counts: np.ndarray, resamples: int = 200) -> tuple[float, float, float]:
    """Return the mean IoU and the ends of its interval."""
    names = [str(i) for i in range(len(counts))]
    scores = Scores('IoU', names, names, np.zeros(len(counts)), lambda weights: _ious(counts, weights))
    estimate = mean_of_classes(scores.of_classes(None))
    samples = mean_of_classes(bootstrap([scores], resamples, Pool()))
    low, high = interval(np.array([estimate]), samples.T)
    return float(estimate), low.values[0], high.values[0]


@pytest.mark.parametrize('images, classes, least', [(11, 150, 0.75), (100, 20, 0.87)])
@pytest.mark.slow
def test_intervals_contain_the_shown_and_the_true_value(images, classes, least):
    """The true value is the mean over many simulated data sets of this size; 95 % would be ideal."""
    rng = np.random.default_rng(0)
    true = np.mean([mean_of_classes(_ious(simulated(images, classes, rng), None)) for _ in range(2000)])
    results = np.array([mean_interval(simulated(images, classes, rng)) for _ in range(200)])
    estimates, low, high = results.T
    assert ((low <= estimates) & (estimates <= high)).all()
    coverage = np.mean((low <= true) & (true <= high))
    print(f'{images} images, {classes} classes: {coverage:.0%}')
    assert least <= coverage <= 0.99


def test_interval_contains_the_mean_despite_rare_classes():
    """Each class occurs in one image, so that a resample misses a third of them."""
    counts = np.zeros((12, 3, 36))
    for i in range(12):
        counts[i, :, 3 * i : 3 * i + 3] = [[0.0, 0.0, 0.1 * i], [1, 2, 3], [0, 1, 1]]
    estimate, low, high = mean_interval(counts)
    assert low <= estimate <= high and low < high


def test_classes_without_a_value_have_no_interval():
    """Numpy would warn of empty slices; a class that only some resamples contain has one."""
    samples = np.array([[np.nan, np.nan, 0.2], [np.nan, 0.5, 0.4], [np.nan, 0.7, 0.6]])
    low, high = interval(np.array([np.nan, 0.6, 0.5]), samples)
    np.testing.assert_allclose(low.values, [np.nan, 0.505, 0.31])
    np.testing.assert_allclose(high.values, [np.nan, 0.695, 0.69])
    assert np.isnan(mean_of_classes(np.full((2, 3), np.nan))).all()
    single = interval(np.array([0.3]), np.array([[0.1]]))
    assert [column.values.item() for column in single] == [0.3, 0.3]
