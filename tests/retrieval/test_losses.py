"""Each loss against a plain recomputation in float64."""

import math

import numpy as np
import pytest
import torch

from harness.retrieval.losses import CentreLoss, MultiSimilarityLoss, TripletLoss, softmax_loss


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


def test_triplet_loss_takes_the_hardest_of_the_batch():
    embeddings = unit_vectors(8, 4, 5)
    distance = torch.cdist(embeddings, embeddings).tolist()
    violations = []
    for anchor, label in enumerate(LABELS.tolist()):
        positives = [distance[anchor][j] for j in range(8) if j != anchor and LABELS[j] == label]
        negatives = [distance[anchor][j] for j in range(8) if LABELS[j] != label]
        if positives:  # identity 3 has one crop: no anchor
            violations.append(max(positives) - min(negatives) + 0.3)
    above = [value for value in violations if value > 0]
    assert len(violations) == 7
    assert TripletLoss(0.3)(embeddings, LABELS).item() == pytest.approx(sum(above) / len(above), rel=1e-6)


def test_triplet_loss_of_identities_far_apart_is_zero():
    embeddings = torch.eye(2).repeat_interleave(2, dim=0)
    assert TripletLoss(0.3)(embeddings, torch.tensor([0, 0, 1, 1])).item() == 0


@pytest.mark.parametrize(("alpha", "beta", "base"), [(2.0, 50.0, 0.5), (8.49, 57.38, 0.41)])
def test_multi_similarity_loss(alpha, beta, base):
    epsilon, embeddings = 0.1, unit_vectors(8, 4, 7)
    similarity = (embeddings @ embeddings.T).tolist()
    total = 0.0
    for anchor, label in enumerate(LABELS.tolist()):
        positives = [similarity[anchor][j] for j in range(8) if j != anchor and LABELS[j] == label]
        negatives = [similarity[anchor][j] for j in range(8) if LABELS[j] != label]
        if not positives:  # nothing to compare with: the miner keeps no pair of this anchor
            continue
        kept_positives = [s for s in positives if s - epsilon < max(negatives)]
        kept_negatives = [s for s in negatives if s + epsilon > min(positives)]
        total += math.log(1 + sum(math.exp(-alpha * (s - base)) for s in kept_positives)) / alpha
        total += math.log(1 + sum(math.exp(beta * (s - base)) for s in kept_negatives)) / beta
    loss = MultiSimilarityLoss(alpha, beta, base, epsilon)
    assert loss(embeddings, LABELS).item() == pytest.approx(total / 8, rel=1e-6)
