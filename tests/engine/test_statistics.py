"""Intervals cover what they claim, also for tiny, degenerate and clustered samples."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from warmstart.engine.statistics import bootstrap, compare, expected_mean, mean_interval, paired, proportion, resample, standard_error


@pytest.mark.parametrize(("successes", "n"), [(0, 8), (8, 8), (3, 8), (1, 1), (912, 1000)])
def test_proportion_is_clopper_pearson(successes: int, n: int) -> None:
    reference = binomtest(successes, n).proportion_ci(method="exact")
    assert proportion(successes, n) == pytest.approx((reference.low, reference.high))


def test_proportion_of_nothing_is_everything() -> None:
    assert proportion(0, 0) == (0.0, 1.0)


def test_bootstrap_covers_95_percent() -> None:
    rng = np.random.default_rng(0)
    values, shares = np.array([0.0, 0.2, 0.5, 0.8, 1.0]), np.array([0.1, 0.3, 0.3, 0.2, 0.1])
    covered = []
    for seed in range(1000):
        low, high = bootstrap(lambda counts: counts @ values / 60, rng.multinomial(60, shares), seed=seed, resamples=600)
        covered.append(low <= values @ shares <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_mean_interval_covers_95_percent() -> None:
    rng = np.random.default_rng(1)
    covered = [low <= 0.4 <= high for low, high in (mean_interval(rng.beta(2, 3, size=8)) for _ in range(1000))]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_mean_interval_of_zeros_and_ones_is_exact() -> None:
    assert mean_interval([1, 0, 1, 1, 1, 1, 1, 1]) == pytest.approx(proportion(7, 8))
    assert mean_interval([1] * 8) == pytest.approx(proportion(8, 8))
    assert mean_interval([1] * 40, clusters=list(range(8)) * 5) == pytest.approx(proportion(8, 8)), (
        "five predictions each are eight examples"
    )


def test_mean_interval_stays_within_bounds() -> None:
    low, high = mean_interval([0.9, 1.0, 0.2])
    assert low == 0
    assert high == 1
    assert mean_interval([0.3]) == (0, 1)
    assert mean_interval([0.7] * 5, bounds=(0, 36)) == pytest.approx((0.7, 0.7))


def test_standard_error_of_rows_and_of_clusters() -> None:
    scores = np.random.default_rng(2).random(50)
    plain = scores.std(ddof=1) / math.sqrt(50)
    assert standard_error(scores) == pytest.approx(plain)
    copies = np.tile(scores, 4)
    assert standard_error(copies) < plain / 1.9, "copies taken for new examples"
    assert standard_error(copies, clusters=np.tile(np.arange(50), 4)) == pytest.approx(plain)
    assert standard_error([1.0]) == 0.5
    assert standard_error([0.5] * 8) == 0


def test_paired_covers_95_percent_with_clusters() -> None:
    rng = np.random.default_rng(3)
    clusters = np.tile(np.arange(30), 4)
    covered, naive, wider = [], [], []
    for seed in range(300):
        example = rng.normal(0.1, 0.2, size=30)
        gaps = example[clusters] + rng.normal(0, 0.1, size=120)
        _, low, high = paired(gaps, np.zeros(120), seed=seed, clusters=clusters)
        covered.append(low <= 0.1 <= high)
        if seed < 60:
            _, naive_low, naive_high = paired(gaps, np.zeros(120), seed=seed)
            naive.append(naive_low <= 0.1 <= naive_high)
            wider.append(high - low > naive_high - naive_low)
    assert 0.93 <= np.mean(covered) <= 0.98
    assert np.mean(naive) < 0.75
    assert all(wider)


def test_paired_of_equal_scores_is_zero_as_far_as_so_few_can_tell() -> None:
    for n in (3, 7, 500):
        difference, low, high = paired([0, *[1] * (n - 1)], [0, *[1] * (n - 1)], seed=0)
        assert (difference, low) == (0, -high)
        assert high == pytest.approx(1 - 0.025 ** (1 / n)), "a share of unlike examples that is seen in none of n once in forty times"


def test_paired_does_not_find_a_difference_in_two_examples() -> None:
    difference, low, high = paired([1, 1], [0, 0], seed=0)
    assert difference == 1
    assert low < 0 < high <= 1
    assert paired([1] * 8, [0] * 8, seed=0)[1] > 0
    assert paired([1, 1, 1, 0, 0, 0, 0, 0], [0] * 8, seed=0)[1] < 0, "three discordant pairs have p = 0.25 in a sign test"


def test_paired_unpairs_nothing() -> None:
    """Two good models that err on the same rows are told apart, though their own intervals overlap."""
    hard = np.random.default_rng(4).random(400) < 0.3
    a, b = np.where(hard, 0, 1), np.where(hard, 0, 1)
    b[np.flatnonzero(b)[:12]] = 0
    assert mean_interval(b)[1] > mean_interval(a)[0]
    assert paired(a, b, seed=0)[1] > 0


def test_same_seed_same_interval_other_seed_other_interval() -> None:
    values = np.random.default_rng(5).random(100)
    draws = [resample(lambda counts: counts @ values, np.ones(100), seed=s) for s in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize("cells", [np.array([500, 300, 200]), np.ones(200, int), np.array([3, 1, 2])])
def test_resamples_are_multinomial(cells: np.ndarray) -> None:
    counts = resample(lambda c: c, cells, seed=0, resamples=4000)
    n, shares = cells.sum(), cells / cells.sum()
    assert (counts.sum(axis=1) == n).all()
    assert counts.mean(axis=0) == pytest.approx(cells, rel=0.1)
    assert counts.var(axis=0) == pytest.approx(n * shares * (1 - shares), rel=0.15)


def test_many_rows_take_fewer_resamples_in_bounded_memory() -> None:
    sizes: list[int] = []

    def statistic(counts: np.ndarray) -> np.ndarray:
        sizes.append(counts.size)
        return counts[:, 0].astype(float)

    assert len(resample(statistic, np.ones(100_000), seed=0)) == 200
    assert max(sizes) <= 4_000_000


def test_bootstrap_without_spread_is_not_certain() -> None:
    assert bootstrap(lambda counts: np.ones(len(counts)), np.array([4, 4]), seed=0) == pytest.approx(proportion(8, 8))


def test_comparison_sentences() -> None:
    rng = np.random.default_rng(6)
    good, bad = (rng.random(1000) < 0.9).astype(float), (rng.random(1000) < 0.8).astype(float)
    better = compare("tail", "classic", good, bad, clusters=None, seed=0, metric_name="accuracy")
    assert better.low < better.difference < better.high
    assert better.sentence == (
        f"tail: +{100 * better.difference:.1f} points [{100 * better.low:.1f}, {100 * better.high:.1f}] over classic (accuracy)"
    )
    worse = compare("classic", "tail", bad, good, clusters=None, seed=0, metric_name="example_f1")
    assert worse.sentence.startswith("classic: -")
    assert worse.sentence.endswith("against tail (example f1)")
    clusters = np.repeat(np.arange(500), 2)
    same = compare("lora", "tail", good, good, clusters=clusters, seed=0, metric_name="accuracy")
    assert same.sentence == "lora cannot be told apart from tail: +0.0 points [-0.7, 0.7] (accuracy)"
    assert same.n == 500


def test_expected_mean_is_closer_than_the_mean_and_covers_95_percent() -> None:
    """Rows of which half are hard; a helper that knows it, on five times as many rows."""
    rng = np.random.default_rng(0)
    near, plain, covered, trials = 0.0, 0.0, 0, 800
    for _ in range(trials):
        hard = rng.random(500) < 0.5
        helper = (rng.random(500) > 0.6 * hard).astype(float)
        scores = (rng.random(100) > 0.7 * hard[:100]).astype(float) * np.where(helper[:100] == 0, rng.random(100) < 0.3, 1)
        truth = 0.5 + 0.5 * 0.3 * (0.4 + 0.6 * 0.3)
        found = expected_mean(scores, helper[:100], helper)
        near += (found.value - truth) ** 2
        plain += (scores.mean() - truth) ** 2
        covered += found.low <= truth <= found.high
    assert near < 0.75 * plain
    assert 0.92 < covered / trials < 0.98


def test_expected_mean_of_a_helper_that_says_nothing_is_the_mean() -> None:
    assert expected_mean([1, 0, 1, 1], [1, 1, 1, 1], np.ones(9)).value == pytest.approx(0.75)
    assert expected_mean([1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 1, 1, 1]).value == pytest.approx(0.5), "the other way is chance"
    few = expected_mean([1, 0], [1, 0], [1, 0, 0, 0])
    assert (few.value, few.low, few.high, few.n) == (0.25, 0.0, 1.0, 4)
