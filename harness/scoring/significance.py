"""How much an accuracy, or the difference of two, may be chance.

Sources: E. B. Wilson 1927 (interval); Q. McNemar 1947, exact binomial form; B. Efron 1979 (bootstrap).
"""

from __future__ import annotations

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
        p_value: two-sided, in (0, 1].
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
    n, smaller = only_first + only_second, min(only_first, only_second)
    term = tail = 1
    for drawn in range(smaller):
        term = term * (n - drawn) // (drawn + 1)
        tail += term
    return PairedTest(only_first, only_second, min(1.0, 2 * tail / 2**n))


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
