"""What is remembered of past batches: the newest, whatever their size, as a function of the step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.retrieval.losses import MultiSimilarityLoss, TripletLoss
from harness.retrieval.memory import Memory


def batch(step: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 3, generator=torch.Generator().manual_seed(step)), 100 * step + torch.arange(size)


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 7))
def test_the_newest_rows_are_there(size, batch_size, num_steps):
    memory, queue = Memory(size, 3), []
    for step in range(num_steps):
        vectors, labels = batch(step, batch_size)
        memory.write(step, vectors, labels)
        queue += list(zip(labels.tolist(), vectors.tolist(), strict=True))
    past = memory.before(num_steps, batch_size)
    if not num_steps:
        assert past is None
        return
    there = dict(zip(past[1].tolist(), past[0].tolist(), strict=True))
    assert there == dict(queue[-size:])
    assert len(past[1]) == min(size, len(queue))


def test_a_memory_is_part_of_a_checkpoint_and_has_no_gradient():
    memory = Memory(4, 3)
    vectors = torch.randn(3, 3, requires_grad=True)
    memory.write(0, vectors, torch.arange(3))
    assert set(memory.state_dict()) == {"embeddings_MD", "labels_M"}
    assert not memory.embeddings_MD.requires_grad
    again = Memory(4, 3)
    again.load_state_dict(memory.state_dict())
    for held, kept in zip(again.before(1, 3), memory.before(1, 3), strict=True):
        assert torch.equal(held, kept)


@pytest.mark.parametrize("loss", [TripletLoss(0.3), MultiSimilarityLoss(2.0, 50.0, 0.5, 0.1)])
def test_writing_does_not_spoil_the_gradient_of_what_was_read(loss):
    memory = Memory(6, 3)
    labels = torch.tensor([0, 0, 1, 1])
    past = torch.nn.functional.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    now = torch.nn.functional.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(2)), dim=1)
    memory.write(0, past, labels)
    gradients = []
    for writes in (False, True):
        vectors = now.clone().requires_grad_()
        value = loss(vectors, labels, memory.before(1, 4))
        if writes:
            memory.write(1, vectors, labels)
        value.backward()
        gradients.append(vectors.grad)
    assert torch.equal(*gradients)
    assert gradients[0].any()


def test_a_memory_has_room():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Memory(0, 3)
