"""Each loss against a plain recomputation in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.retrieval.losses import CentreLoss, MultiSimilarityLoss, TripletLoss, _Pairs, softmax_loss


def unit_vectors(count: int, dimensions: int, seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, dimensions))
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3])


def test_softmax_loss():
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 4))).float()
    labels = torch.tensor([0, 3, 1, 1, 2])
    total = 0.0
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        scaled = [value / 0.5 for value in row]
        log_sum = math.log(sum(math.exp(value) for value in scaled))
        for column, value in enumerate(scaled):
            target = 0.1 / 4 + (0.9 if column == label else 0)
            total -= target * (value - log_sum)
    assert softmax_loss(logits, labels, 0.5, 0.1).item() == pytest.approx(total / 5, rel=1e-5)


def test_centre_loss_and_its_gradient():
    centre = CentreLoss(4, 3)
    centre.centres_CD.copy_(unit_vectors(4, 3, 1))
    embeddings = unit_vectors(8, 3, 2).float().requires_grad_()
    loss = centre(embeddings, LABELS)
    gaps = embeddings.detach().double() - centre.centres_CD.double()[LABELS]
    assert loss.item() == pytest.approx(float((gaps**2).sum() / 2 / 8), rel=1e-5)
    loss.backward()
    assert torch.allclose(embeddings.grad, (gaps / 8).float(), atol=1e-6)


def test_centres_move_by_wens_rule():
    centre = CentreLoss(4, 3, rate=0.5)
    before = unit_vectors(4, 3, 1).float()
    centre.centres_CD.copy_(before)
    embeddings, labels = unit_vectors(5, 3, 2).float(), torch.tensor([2, 0, 2, 2, 0])
    centre.update(embeddings, labels)
    for label in range(4):
        rows = [row for row, one in enumerate(labels.tolist()) if one == label]
        change = sum((before[label] - embeddings[row] for row in rows), torch.zeros(3)) / (1 + len(rows))
        assert torch.allclose(centre.centres_CD[label], before[label] - 0.5 * change, atol=1e-6)


def test_updating_centres_before_backward_does_not_spoil_the_gradient():
    centre = CentreLoss(4, 3)
    embeddings = unit_vectors(8, 3, 2).float().requires_grad_()
    loss = centre(embeddings, LABELS)
    centre.update(embeddings, LABELS)
    loss.backward()
    assert torch.allclose(embeddings.grad, embeddings.detach() / 8, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_centre_rate_is_checked(rate):
    with pytest.raises(ValueError, match="rate"):
        CentreLoss(2, 2, rate)


def rows(tensor: torch.Tensor) -> list[list[float]]:
    return tensor.detach().double().tolist()


def inner(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def partners(anchor, vectors, labels, past=None):
    """Positives and negatives of a row of a batch, itself left out: first of the batch, then of what is remembered."""
    others = [(vectors[j], labels[j]) for j in range(len(vectors)) if j != anchor]
    others += list(zip(*past, strict=True)) if past else []
    return (
        [vector for vector, label in others if label == labels[anchor]],
        [vector for vector, label in others if label != labels[anchor]],
    )


def plain_triplet(vectors, labels, margin, past=None) -> float:
    above = []
    for anchor, vector in enumerate(vectors):
        positives, negatives = partners(anchor, vectors, labels, past)
        if positives and negatives:
            farthest, nearest = (
                max(math.dist(vector, p) for p in positives),
                min(math.dist(vector, n) for n in negatives),
            )
            if farthest - nearest + margin > 0:
                above.append(farthest - nearest + margin)
    return sum(above) / len(above) if above else 0.0


def plain_multi_similarity(vectors, labels, alpha, beta, base, epsilon, past=None) -> float:
    total, num_kept = 0.0, [0, 0]
    for anchor, vector in enumerate(vectors):
        positives, negatives = (
            [inner(vector, one) for one in side] for side in partners(anchor, vectors, labels, past)
        )
        kept_positives = [s for s in positives if negatives and s - epsilon < max(negatives)]
        kept_negatives = [s for s in negatives if positives and s + epsilon > min(positives)]
        total += math.log(1 + sum(math.exp(-alpha * (s - base)) for s in kept_positives)) / alpha
        total += math.log(1 + sum(math.exp(beta * (s - base)) for s in kept_negatives)) / beta
        num_kept[0] += len(kept_positives)
        num_kept[1] += len(kept_negatives)
    return 0.0 if max(num_kept) <= 1 else total / len(vectors)


MS = (2.0, 50.0, 0.5, 0.1)
AUTOML = (8.49, 57.38, 0.41, 0.1)


@st.composite
def batches(draw):
    count = draw(st.integers(2, 12))
    labels = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    num_past = draw(st.integers(0, 8))
    past = draw(st.lists(st.integers(0, 4), min_size=num_past, max_size=num_past))
    return labels, past, draw(st.integers(0, 2**16))


@given(batches(), st.sampled_from([MS, AUTOML, (1.0, 5.0, 0.2, 1.5)]))
def test_pair_losses_are_those_of_plain_loops(case, shape):
    labels, past_labels, seed = case
    vectors, past = unit_vectors(len(labels), 4, seed), unit_vectors(len(past_labels), 4, seed + 1)
    held = (past, torch.tensor(past_labels)) if past_labels else None
    plain_past = (rows(past), past_labels) if past_labels else None
    triplet = TripletLoss(0.3)(vectors, torch.tensor(labels), held)
    assert triplet.item() == pytest.approx(plain_triplet(rows(vectors), labels, 0.3, plain_past), rel=1e-6, abs=1e-9)
    found = MultiSimilarityLoss(*shape)(vectors, torch.tensor(labels), held)
    expected = plain_multi_similarity(rows(vectors), labels, *shape, plain_past)
    assert found.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_batch_by_hand():
    # Two identities at right angles but for one crop of the second, which lies beside the first.
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.8, 0.6]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    # Anchors 0 and 1: positive at 0, nearest negative at √0.4; 2: .8944 against √2; 3: .8944 against √0.4.
    far, near = math.sqrt(0.8), math.sqrt(0.4)
    assert TripletLoss(0.1)(vectors, labels).item() == pytest.approx(far - near + 0.1)
    assert TripletLoss(0.7)(vectors, labels).item() == pytest.approx(
        (2 * (0.7 - near) + (far - math.sqrt(2) + 0.7) + (far - near + 0.7)) / 4
    )


@pytest.mark.parametrize("loss", [TripletLoss(0.3), MultiSimilarityLoss(*MS), MultiSimilarityLoss(*AUTOML)])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["one identity", "no positives"])
def test_without_positives_or_negatives_there_is_nothing_to_learn(loss, labels):
    vectors = unit_vectors(4, 3, 1).requires_grad_()
    value = loss(vectors, torch.tensor(labels))
    value.backward()
    assert value.item() == 0
    assert not vectors.grad.any()


@pytest.mark.parametrize("loss", [TripletLoss(0.3), MultiSimilarityLoss(*MS), MultiSimilarityLoss(*AUTOML)])
def test_identical_embeddings_have_a_finite_loss_and_gradient(loss):
    vectors = torch.ones(8, 4).div(2).requires_grad_()
    value = loss(vectors, LABELS)
    value.backward()
    assert torch.isfinite(value)
    assert value > 0
    assert torch.isfinite(vectors.grad).all()
    if isinstance(loss, TripletLoss):
        assert value.item() == pytest.approx(0.3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_with_in_single(dtype):
    vectors = unit_vectors(8, 16, 3).to(dtype)
    past = (unit_vectors(5, 16, 4).to(dtype), torch.tensor([0, 1, 2, 3, 4]))
    for loss in (TripletLoss(0.3), MultiSimilarityLoss(*MS)):
        found = loss(vectors, LABELS, past)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(loss(vectors.float(), LABELS, (past[0].float(), past[1])).item())
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert softmax_loss(logits, LABELS, 0.5, 0.1).dtype == torch.float32
    centre = CentreLoss(4, 16)
    assert centre(vectors, LABELS).dtype == torch.float32
    centre.update(vectors, LABELS)
    assert centre.centres_CD.dtype == torch.float32


def test_gradients_are_those_of_finite_differences():
    vectors = unit_vectors(8, 4, 5).requires_grad_()
    past = (unit_vectors(6, 4, 6), torch.tensor([0, 1, 2, 3, 0, 1]))
    centre = CentreLoss(4, 4).double()
    centre.centres_CD.copy_(unit_vectors(4, 4, 7))
    for function in (TripletLoss(0.3), MultiSimilarityLoss(*MS), MultiSimilarityLoss(*AUTOML)):
        assert torch.autograd.gradcheck(lambda rows, function=function: function(rows, LABELS, past), vectors)
        assert torch.autograd.gradcheck(lambda rows, function=function: function(rows, LABELS), vectors)
    assert torch.autograd.gradcheck(lambda rows: centre(rows, LABELS), vectors)


def test_the_gradient_of_softmax():
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    softmax_loss(logits, LABELS, 0.5, 0.1).backward()
    for row, label in zip(range(8), LABELS.tolist(), strict=True):
        powers = [math.exp(value / 0.5) for value in rows(logits)[row]]
        for column, power in enumerate(powers):
            target = 0.1 / 4 + (0.9 if column == label else 0)
            # d/dx of the mean over 8 rows of −Σ t log softmax(x / 0.5)
            assert logits.grad[row, column].item() == pytest.approx((power / sum(powers) - target) / 0.5 / 8, abs=1e-6)


def test_the_miner_keeps_what_pytorch_metric_learning_keeps():
    from pytorch_metric_learning.miners import MultiSimilarityMiner

    for seed in range(20):
        vectors = unit_vectors(8, 3, seed)
        loss = MultiSimilarityLoss(*MS)
        positives, negatives = loss.informative(_Pairs.of(vectors, LABELS, None))
        a1, p, a2, n = MultiSimilarityMiner(epsilon=0.1)(vectors, LABELS)
        assert set(zip(*(side.tolist() for side in torch.where(positives)), strict=True)) == set(
            zip(a1.tolist(), p.tolist(), strict=True)
        )
        assert set(zip(*(side.tolist() for side in torch.where(negatives)), strict=True)) == set(
            zip(a2.tolist(), n.tolist(), strict=True)
        )


def test_one_pair_of_each_kind_is_taken_for_none():
    # The library's own rule, which a batch of a training never meets.
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.96, 0.28]], dtype=torch.float64)
    assert MultiSimilarityLoss(2.0, 50.0, 0.5, 0.1)(vectors[[0, 2]], torch.tensor([0, 1])).item() == 0
    assert MultiSimilarityLoss(2.0, 50.0, 0.5, 0.1)(vectors, torch.tensor([0, 0, 1])).item() > 0
