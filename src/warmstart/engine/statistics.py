"""Intervals and paired comparisons. Every interval is at 95 %; R resamples, K kinds of row, N rows, M independent examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, norm, t

from warmstart.core.report import Comparison, Metric

Floats: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
LONE_STANDARD_ERROR = 0.5  # the largest standard deviation of anything between 0 and 1 (Popoviciu 1935)
FEW_EXAMPLES = 10  # below this a bootstrap, which cannot leave the range of what was seen, is replaced by Student's interval
NO_SPREAD = 1e-12  # rounding of sums
BIASED = 0.25  # of a standard error: beyond, the bias of a bootstrap is not passed over (Efron & Tibshirani 1993, 10.3)
DRAWS_AT_MOST = 20_000_000  # about one second
KIND_COST, START_COST = 10, 1_000  # of one binomial draw, and of starting to draw row by row, in drawn rows
DRAWS_AT_ONCE = 4_000_000  # 32 MB


def proportion(successes: float, n: float) -> Interval:
    """Exact interval of a proportion (Clopper & Pearson 1934).

    ``successes`` and ``n`` may be fractional, as effective sample sizes are. Nothing seen (``n = 0``) gives ``(0, 1)``.
    """
    low = float(beta.ppf(TAIL, successes, n - successes + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - TAIL, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def standard_error(scores: ArrayLike, clusters: ArrayLike | None = None) -> float:
    """Standard error of the mean of per-row scores between 0 and 1.

    Args:
        scores: (N,).
        clusters: (N,) which example each row is about, when examples occur several times (repeated cross-validation). Rows of one
            example are not independent, so their residuals are added up first (cluster-robust variance, Liang & Zeger 1986).

    Returns:
        0.5 for a single example: nothing is known of the spread, and more is not possible.
    """
    sums, sizes = by_cluster(scores, clusters)
    m = len(sums)
    if m < 2:
        return LONE_STANDARD_ERROR
    residuals = sums - sizes * (sums.sum() / sizes.sum())
    return float(np.sqrt(m / (m - 1) * np.square(residuals).sum()) / sizes.sum())


def mean_interval(scores: ArrayLike, clusters: ArrayLike | None = None, *, bounds: Interval = (0.0, 1.0)) -> Interval:
    """Interval of the mean of per-row scores that cannot leave ``bounds``.

    Scores that are all 0 or 1 get the exact interval of a proportion; with clusters the sample size is the effective one
    (Korn & Graubard 1998), never more than the number of examples. Others get Student's interval (1908) with the standard error of
    ``standard_error``, cut at the bounds. A single example gets the whole range.
    """
    values = np.asarray(scores, np.float64)
    mean, spread = float(values.mean()), standard_error(values, clusters)
    m = len(values) if clusters is None else len(np.unique(np.asarray(clusters)))
    if bounds == (0.0, 1.0) and np.isin(values, (0.0, 1.0)).all():
        effective = float(m)
        if clusters is not None and m > 1 and spread > 0:
            effective = min(effective, mean * (1 - mean) / spread**2 * m / (m - 1))
        return proportion(mean * effective, effective)
    if m < 2:
        return bounds
    half = spread * float(t.ppf(1 - TAIL, m - 1))
    return max(bounds[0], mean - half), min(bounds[1], mean + half)


def mean_metric(scores: ArrayLike, *, bounds: Interval = (0.0, 1.0)) -> Metric:
    """The mean of per-row scores (N,) with its interval."""
    values = np.asarray(scores, np.float64)
    low, high = mean_interval(values, bounds=bounds)
    return Metric(float(values.mean()), low, high, len(values))


def expected_mean(scores: ArrayLike, helper: ArrayLike, helper_on_all: ArrayLike, *, bounds: Interval = (0.0, 1.0)) -> Metric:
    """The mean to be expected on all of N rows of scores that are known on n of them, with the help of what is known on all.

    The regression estimator of double sampling (Cochran 1977, section 12.7): where the n rows were easier than the others for
    whoever answered all of them, the mean is lowered by as much as the two go together. Its variance is that of the residuals over n
    and of what the helper explains over N. A helper that goes the other way is taken for chance.

    Args:
        scores: (n,) known scores.
        helper: (n,) the helper on the same rows.
        helper_on_all: (N,) the helper on all rows, these among them.
    """
    y, x, every = (np.asarray(values, np.float64) for values in (scores, helper, helper_on_all))
    spread = float(np.square(x - x.mean()).sum())
    slope = max(0.0, float(((x - x.mean()) * y).sum()) / spread) if spread > NO_SPREAD else 0.0
    value = float(np.clip(y.mean() + slope * (every.mean() - x.mean()), *bounds))
    if len(y) < 3:
        return Metric(value, *bounds, len(every))
    residuals = y - y.mean() - slope * (x - x.mean())
    variance = float(np.square(residuals).sum()) / (len(y) - 2) / len(y) + slope**2 * float(every.var(ddof=1)) / len(every)
    half = variance**0.5 * float(t.ppf(1 - TAIL, len(y) - 2))
    return Metric(value, max(bounds[0], value - half), min(bounds[1], value + half), len(every))


def unbounded_mean(values: ArrayLike) -> Metric:
    """The mean of losses or errors, with its interval; of one value alone it is from 0 to twice that."""
    found = np.asarray(values, np.float64)
    mean = float(found.mean())
    return mean_metric(found, bounds=(-np.inf, np.inf) if len(found) > 1 else (mean - abs(mean), mean + abs(mean)))


def resample(statistic: Callable[[NDArray[np.int64]], Floats], cells: ArrayLike, *, seed: int, resamples: int = 1000) -> Floats:
    """Values of a statistic on samples drawn with replacement (the bootstrap, Efron 1979).

    ``cells[k]`` rows are of kind ``k``, and a resample is given as its counts of each kind, so that a statistic is a few weighted sums
    and memory is bounded. With more than 20,000 kinds fewer resamples are taken, down to 200.

    Args:
        statistic: Maps counts (r, K) to values (r, ...), one for each resample.
        cells: (K,) how many rows of each kind were seen; ones when every row differs.
        seed: The same seed draws the same samples.
        resamples: R.

    Returns:
        (R, ...).
    """
    seen = np.asarray(cells, np.int64)
    rng = np.random.default_rng(seed)
    resamples = min(resamples, max(200, DRAWS_AT_MOST // len(seen)))
    chunk = max(1, DRAWS_AT_ONCE // len(seen))
    parts = [statistic(_draw(rng, seen, min(chunk, resamples - start))) for start in range(0, resamples, chunk)]
    return np.concatenate(parts)


def bootstrap(statistic: Callable[[NDArray[np.int64]], Floats], cells: ArrayLike, *, seed: int, resamples: int = 1000) -> Interval:
    """Bootstrap interval of a statistic between 0 and 1, which holds the value; arguments as for ``resample``.

    Bias-corrected percentiles (Efron 1981), taken a little further out because a bootstrap of few rows is too narrow (expanded
    percentiles, Hesterberg 2015). Where no resample differs (every row right, or a single row) a bootstrap would claim certainty:
    then the interval is the exact one of a proportion of that value.

    A mean over many classes with a few rows each is biased: downwards, as a class that meets chance twice, in its few truths and in its
    false alarms, loses more than it wins; or upwards, where a model names ever more classes that are not there. A resample repeats that
    on what is biased already, so that all of them may lie on one side of the value, and percentiles of them say nothing of the truth,
    which lies on the other. Where the bias is more than a quarter of the standard error, the interval is the reflected one (basic
    bootstrap, Davison & Hinkley 1997), widened to hold the value. With one row a class nothing helps.
    """
    seen = np.asarray(cells, np.int64)
    observed = float(statistic(seen[None])[0])
    return interval(resample(statistic, seen, seed=seed, resamples=resamples), observed, int(seen.sum()))


def interval(draws: Floats, observed: float, n: int) -> Interval:
    """``bootstrap`` from values (R,) that were drawn already, of a statistic that was ``observed`` on ``n`` rows."""
    if n < 2 or np.ptp(draws) < NO_SPREAD:
        return proportion(min(max(observed, 0.0), 1.0) * n, n)
    if abs(float(draws.mean()) - observed) <= BIASED * float(draws.std()):
        return _percentiles(draws, observed, n)
    low, high = (float(np.quantile(draws, norm.cdf(side))) for side in _sides(n))
    return max(0.0, min(observed, 2 * observed - high)), min(1.0, max(observed, 2 * observed - low))


def paired(a_scores: ArrayLike, b_scores: ArrayLike, *, seed: int, clusters: ArrayLike | None = None) -> tuple[float, float, float]:
    """Mean of ``a - b`` on the same rows and its interval, from a paired bootstrap of the examples.

    Args:
        a_scores: (N,) per-row scores between 0 and 1.
        b_scores: (N,) of the other, row by row.
        seed: Of the resampling.
        clusters: (N,) which example each row is about; whole examples are drawn (cluster bootstrap, Davison & Hinkley 1997, 3.8).

    Returns:
        (difference, low, high). Fewer than ten examples get Student's interval. Where all examples differ by the same amount, such as
        not at all, it allows for the share of unlike examples that so few may have missed (Clopper & Pearson 1934).
    """
    gaps = np.asarray(a_scores, np.float64) - np.asarray(b_scores, np.float64)
    sums, sizes = by_cluster(gaps, clusters)
    difference, m = float(gaps.mean()), len(sums)
    if np.ptp(sums / sizes) < NO_SPREAD:
        missed = proportion(0, m)[1]
        low, high = (1 - missed) * difference - missed, (1 - missed) * difference + missed
    elif m < FEW_EXAMPLES:
        low, high = mean_interval(gaps, clusters, bounds=(-1.0, 1.0))
    else:
        kinds, cells = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
        draws = resample(lambda counts: (counts @ kinds[:, 0]) / (counts @ kinds[:, 1]), cells, seed=seed)
        low, high = _percentiles(draws, difference, m)
    return difference, low, high


def compare(
    a: str, b: str, a_scores: ArrayLike, b_scores: ArrayLike, *, clusters: ArrayLike | None, seed: int, metric_name: str
) -> Comparison:
    """Paired comparison of two models as numbers and as a plain sentence in points (hundredths of the metric).

    Args:
        a: Name of the one.
        b: Name of the other.
        a_scores: (N,) per-row contributions of ``a`` to the metric, between 0 and 1.
        b_scores: (N,) of ``b``, on the same rows.
        clusters: (N,) which example each row is about, or None when every row is another example.
        seed: Of the resampling.
        metric_name: What the scores are, as the sentence calls it.

    Returns:
        The comparison; its ``n`` counts examples.
    """
    difference, low, high = paired(a_scores, b_scores, seed=seed, clusters=clusters)
    n = len(np.asarray(a_scores) if clusters is None else np.unique(np.asarray(clusters)))
    points = f"{100 * difference:+z.1f} points [{100 * low:z.1f}, {100 * high:z.1f}]"
    what = metric_name.replace("_", " ")
    if low > 0:
        sentence = f"{a}: {points} over {b} ({what})"
    elif high < 0:
        sentence = f"{a}: {points} against {b} ({what})"
    else:
        sentence = f"{a} cannot be told apart from {b}: {points} ({what})"
    return Comparison(a, b, difference, low, high, n, sentence)


def _draw(rng: np.random.Generator, cells: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Counts (size, K) of as many rows as the cells hold: by kind where kinds are few, else row by row, which is then faster."""
    n = int(cells.sum())
    if KIND_COST * len(cells) < n + START_COST:
        return rng.multinomial(n, cells / n, size=size)
    kinds = np.repeat(np.arange(len(cells)), cells)
    return np.stack([np.bincount(kinds[rng.integers(n, size=n)], minlength=len(cells)) for _ in range(size)])


def by_cluster(scores: ArrayLike, clusters: ArrayLike | None) -> tuple[Floats, Floats]:
    """Sum of the scores and number of rows of each example."""
    values = np.asarray(scores, np.float64)
    if clusters is None:
        return values, np.ones_like(values)
    index: NDArray[Any] = np.unique(np.asarray(clusters), return_inverse=True)[1]
    return np.bincount(index, weights=values).astype(np.float64), np.bincount(index).astype(np.float64)


def _percentiles(draws: Floats, observed: float, m: int) -> Interval:
    """Bias-corrected, expanded percentiles of (R,) draws; ``m >= 2`` independent examples."""
    below = (np.mean(draws < observed) + np.mean(draws <= observed)) / 2
    bias = norm.ppf(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
    low, high = (float(np.quantile(draws, norm.cdf(2 * bias + side))) for side in _sides(m))
    return low, high


def _sides(m: int) -> Interval:
    """Where the two tails begin, in standard errors: expanded for ``m >= 2`` independent examples (Hesterberg 2015)."""
    far = float(np.sqrt(m / (m - 1)) * t.ppf(1 - TAIL, m - 1))
    return -far, far
