"""How much an accuracy, or the difference of two, may be chance.

Sources: E. B. Wilson 1927 (interval); Q. McNemar 1947, exact binomial form; B. Efron 1979 (bootstrap);
R. J. Connor 1987 (sample size of a paired test).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from harness.scoring.official import MIN_IOU
from harness.scoring.overlap import common_codes, iou, join
from harness.scoring.truth import Gallery, Queries, refuse_unanswerable
from harness.types import Bools, Floats, Ints


@dataclass(frozen=True)
class PairedTest:
    """McNemar's exact test of two systems on the same queries.

    Attributes:
        only_first: queries that the first gets right and the second does not.
        only_second: the other way round.
        p_value: two-sided, in [0, 1]; 0 only where it is below the smallest float.
    """

    only_first: int
    only_second: int
    p_value: float


def wilson_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval in which the true proportion lies, by Wilson's score method.

    Args:
        hits: right answers, 0 … n.
        n: questions, at least 1.
        confidence: in (0, 1).

    Returns:
        Lower and upper bound in [0, 1].

    Raises:
        ValueError: n is not positive, or hits or confidence is out of range.
    """
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"expected 0 <= hits <= n and n >= 1, got hits {hits}, n {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / n
    centre = share + z * z / (2 * n)
    spread = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    # At the ends the formula gives exactly 0 and 1; rounding would leave 1e-17 beside them.
    low = 0.0 if hits == 0 else (centre - spread) / scale
    high = 1.0 if hits == n else (centre + spread) / scale
    return low, high


def mcnemar_exact(first_hits: Bools, second_hits: Bools) -> PairedTest:
    """Whether two systems differ on the same queries: only the queries on which they disagree count.

    Args:
        first_hits: (Q,) bool, which queries the first system gets right.
        second_hits: (Q,) bool, the same queries.

    Returns:
        The disagreements and twice the smaller tail of Binomial(n, 1/2), at most 1.

    Raises:
        ValueError: the vectors are not of the same length or not boolean.
    """
    first, second = _same_queries(first_hits, second_hits)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n, drawn = only_first + only_second, min(only_first, only_second)
    # From the largest binomial coefficient down until the next is below 2^-192 of it: some 20 sqrt(n) terms instead of
    # n / 2, on integers of 192 bits instead of n. Up to 192 bits the integers are exact.
    term = math.comb(n, drawn)
    dropped_bits = max(0, term.bit_length() - 192)
    term >>= dropped_bits
    tail = 0
    while term:
        tail += term
        term = term * drawn // (n - drawn + 1)
        drawn -= 1
    return PairedTest(only_first, only_second, min(1.0, 2 * tail / 2 ** (n - dropped_bits)))


def queries_needed(first_hits: Bools, second_hits: Bools, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """How many queries it would take to tell the observed difference of two systems from noise by McNemar's test.

    The shares of queries on which only one of them is right are taken for the true ones.

    Args:
        first_hits: (Q,) bool, which queries the first system gets right.
        second_hits: (Q,) bool, the same queries.
        power: probability in (0, 1) with which the test is to find the difference.
        alpha: level of the two-sided test, in (0, 1).

    Returns:
        Queries, at least as many as an exact test at that level can do with; None if both get the same number of
        queries right, for then there is no difference to find.

    Raises:
        ValueError: the vectors are not of the same length or not boolean, or a number is out of range.

    Source: Connor 1987, n = (z_alpha/2 sqrt(s) + z_power sqrt(s - d^2))^2 / d^2 with the share s of discordant queries
    and the difference d, is for the normal approximation of the test. The exact test is more careful; J. T. Casagrande,
    M. C. Pike and P. G. Smith 1978 add for it: n / 4 (1 + sqrt(1 + 4 / (n d)))^2. Simulated, the first alone finds 0.54
    to 0.59 of the differences where 0.6 is asked, with the correction 0.60 to 0.62.
    """
    first, second = _same_queries(first_hits, second_hits)
    if not 0 < power < 1 or not 0 < alpha < 1:
        raise ValueError(f"expected 0 < power < 1 and 0 < alpha < 1, got {power} and {alpha}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first == only_second:
        return None
    discordant = (only_first + only_second) / len(first)
    difference = abs(only_second - only_first) / len(first)
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    spread = z_alpha * math.sqrt(discordant) + z_power * math.sqrt(max(0.0, discordant - difference**2))
    approximate = (spread / difference) ** 2
    exact = approximate / 4 * (1 + math.sqrt(1 + 4 / (approximate * difference))) ** 2
    fewest = math.floor(math.log2(2 / alpha)) + 1  # all discordant on one side: 2 / 2^n < alpha
    return max(fewest, math.ceil(exact))


def paired_bootstrap(
    first_hits: Bools, second_hits: Bools, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the difference of two accuracies on the same queries, second minus first.

    Resampling queries with replacement draws how many of them only the first, only the second, or neither alone gets
    right: three multinomial counts, drawn directly.

    Args:
        first_hits: (Q,) bool, at least one query.
        second_hits: (Q,) bool, the same queries.
        confidence: in (0, 1).
        num_resamples: at least 1.
        seed: of the random generator.

    Returns:
        Lower and upper bound in [-1, 1].

    Raises:
        ValueError: the vectors are empty, not of the same length, or not boolean, or a number is out of range.
    """
    first, second = _same_queries(first_hits, second_hits)
    if len(first) == 0:
        raise ValueError("there is no query to compare on")
    if not 0 < confidence < 1 or num_resamples < 1:
        raise ValueError(f"expected 0 < confidence < 1 and num_resamples >= 1, got {confidence} and {num_resamples}")
    n = len(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    shares = np.array([only_first, only_second, n - only_first - only_second]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, size=num_resamples)
    low, high = np.quantile((draws[:, 1] - draws[:, 0]) / n, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def chance(
    queries: Queries,
    gallery: Gallery,
    k: int = 10,
    image_ids: Ints | None = None,
    boxes_xyxy: Floats | None = None,
) -> float:
    """The Acc@k to expect of a ranking that is drawn blindly, exact by counting.

    For a query with c right boxes among G, k draws without replacement miss them all with the probability
    C(G - c, k) / C(G, k). Every query is taken to have a box that speaks for it. Right is what the official rules take
    for right: an IoU of at least 0.5 with a gallery item of the query's pair and style, in its photo.

    Args:
        queries: all annotated consumer items.
        gallery: all annotated shop items.
        k: draws, at least 1.
        image_ids: (G,) int64, photos of the boxes that are searched; without it the annotated gallery boxes.
        boxes_xyxy: (G, 4) float64, pixels; given together with ``image_ids``.

    Returns:
        The mean over all queries of style > 0, in [0, 1].

    Raises:
        ValueError: k is below 1, or only one of ``image_ids`` and ``boxes_xyxy`` is given.
        InputError: queries and gallery do not belong together.
    """
    if k < 1 or (image_ids is None) != (boxes_xyxy is None):
        raise ValueError(f"expected k >= 1 and both or none of image_ids and boxes_xyxy, got k = {k}")
    refuse_unanswerable(queries, gallery)
    if image_ids is None or boxes_xyxy is None:
        image_ids, boxes_xyxy = gallery.image_ids, gallery.boxes_xyxy
    asked = queries.asked_rows
    asked_keys, answer_keys = common_codes(
        (queries.pair_ids[asked], queries.styles[asked]), (gallery.pair_ids, gallery.styles)
    )
    answers, boxes = join(gallery.image_ids, image_ids)
    right = iou(boxes_xyxy[boxes], gallery.boxes_xyxy[answers]) >= MIN_IOU
    right_pairs = np.unique(np.stack([answer_keys[answers[right]], boxes[right]], axis=1), axis=0)
    num_right = np.bincount(right_pairs[:, 0], minlength=int(asked_keys.max()) + 1)[asked_keys]
    missed = np.ones(len(asked))
    for drawn in range(min(k, len(image_ids))):
        missed *= np.clip(len(image_ids) - num_right - drawn, 0, None) / (len(image_ids) - drawn)
    return float(np.mean(1 - missed))


def _same_queries(first_hits: Bools, second_hits: Bools) -> tuple[Bools, Bools]:
    first, second = np.asarray(first_hits), np.asarray(second_hits)
    if first.shape != second.shape or first.ndim != 1 or first.dtype != np.bool_ or second.dtype != np.bool_:
        raise ValueError(
            f"expected two boolean vectors over the same queries, got {first.dtype} of shape {first.shape} "
            f"and {second.dtype} of shape {second.shape}"
        )
    return first, second
