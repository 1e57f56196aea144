import numpy as np
import torch

from harness.retrieval.augmentation import Draws, augment
from harness.retrieval.recipes import resolve
from harness.retrieval.settings import AugmentationSettings

NONE = AugmentationSettings(
    zoom=(1, 1), aspect=0, shift=0, rotation_deg=0, flip=0, brightness=0, contrast=0, saturation=0, white_balance=0,
    blur=0, erase=0, erase_area=(0, 0),
)  # fmt: skip


def canvases(batch=3, height=8, width=12) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), dtype=np.uint8))


def whole(batch=3) -> torch.Tensor:
    return torch.tensor([[0.0, 0, 1, 1]] * batch)


def run(settings, *, views=None, seed=0, wh=(12, 8)) -> torch.Tensor:
    images = canvases()
    draws = Draws.of(len(images), settings, np.random.default_rng(seed))
    return augment(images, whole() if views is None else views, wh, draws)


def plain() -> torch.Tensor:
    return canvases().permute(0, 3, 1, 2).float() / 255


def test_without_variation_the_view_comes_back():
    assert torch.allclose(run(NONE), plain(), atol=1e-5)


def test_a_view_is_cut_out_of_the_canvas():
    views = torch.tensor([[0.5, 0.25, 1.0, 0.75]] * 3)
    assert torch.allclose(run(NONE, views=views, wh=(6, 4)), plain()[:, :, 2:6, 6:], atol=1e-5)


def test_flip_mirrors_left_and_right():
    assert torch.allclose(run(NONE.model_copy(update={"flip": 1.0})), plain().flip(3), atol=1e-5)


def test_white_balance_scales_whole_channels():
    settings = NONE.model_copy(update={"white_balance": 0.3})
    dark = canvases() // 4  # nothing reaches the clamp at 1
    images = augment(dark, whole(), (12, 8), Draws.of(3, settings, np.random.default_rng(5)))
    ratio = images / (dark.permute(0, 3, 1, 2).float() / 255).clamp(min=1e-3)
    solid = dark.permute(0, 3, 1, 2) > 0
    for row in range(3):
        gains = [ratio[row, channel][solid[row, channel]] for channel in range(3)]
        assert all((gain.max() - gain.min()) < 1e-3 for gain in gains)
        assert len({round(gain.mean().item(), 3) for gain in gains}) == 3


def test_saturation_and_contrast_keep_the_mean_grey():
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    middle = canvases() // 4 + 96
    settings = NONE.model_copy(update={"saturation": 0.3, "contrast": 0.2})
    images = augment(middle, whole(), (12, 8), Draws.of(3, settings, np.random.default_rng(1)))
    before = (middle.permute(0, 3, 1, 2).float() / 255 * luma).sum(1).mean((1, 2))
    assert torch.allclose((images * luma).sum(1).mean((1, 2)), before, atol=1e-4)
    assert not torch.allclose(images, middle.permute(0, 3, 1, 2).float() / 255, atol=1e-2)


def test_erasing_leaves_one_grey_rectangle():
    settings = NONE.model_copy(update={"erase": 1.0, "erase_area": (0.2, 0.3)})
    erased = (run(settings) != run(NONE)).any(dim=1)
    for mask in erased:
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.all()
        assert 0.05 < mask.float().mean() < 0.45


def test_a_batch_depends_on_its_random_numbers_alone():
    settings = resolve("m0", "tiny").augmentation
    assert torch.equal(run(settings, seed=4), run(settings, seed=4))
    assert not torch.equal(run(settings, seed=4), run(settings, seed=5))
    images = run(settings, seed=4, wh=(6, 10))
    assert images.shape == (3, 3, 10, 6)
    assert images.min() >= 0
    assert images.max() <= 1


def test_a_part_of_a_batch_looks_as_it_does_within_the_whole():
    settings = resolve("m0", "tiny").augmentation
    draws = Draws.of(3, settings, np.random.default_rng(2))
    everything = augment(canvases(), whole(), (12, 8), draws)
    for rows in (slice(0, 1), slice(1, 3)):
        part = augment(canvases()[rows], whole()[rows], (12, 8), draws.take(rows))
        assert torch.allclose(part, everything[rows], atol=1e-6)
