"""A detector is judged while it trains, and goes on as if nobody had looked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.detection.card import DetectorPlan
from harness.detection.evaluation import Evaluation, as_in_use
from harness.detection.inference import Detector, detect
from harness.detection.recipes import load_recipes
from harness.detection.training import fresh_network, train
from harness.scoring.boxes import box_ap
from harness.types import BoxAP, InputError

SHORT = {"batch_size": 2, "num_steps": 6, "pretraining": None, "score_threshold": 0.0}
JUDGED_ON = np.arange(9, 13)


def short(name="ATSS", **more):
    recipe = load_recipes()[name]
    return recipe.model_copy(update={"tiny": recipe.tiny.model_copy(update={**SHORT, **more})})


def told(*figures):
    """A score that says the given figures, one a look, and keeps what it was shown."""
    left, shown = list(figures), []

    def score(found):
        shown.append(found)
        return BoxAP(left.pop(0), 0.5, None, None, None, None)

    return score, shown


def evaluation(split, score, **more):
    return Evaluation(split, JUDGED_ON, score, **{"every": 2, **more})


def weights_of(folder):
    return torch.load(folder / "weights.pt", weights_only=True)


def alike(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def plain(split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    train(short(), "tiny", split, JUDGED_ON - 8, folder, seed=3)
    return weights_of(folder)


def test_a_look_changes_nothing(plain, split, tmp_path):
    score, shown = told(0.1, 0.2, 0.3)
    card = train(short(), "tiny", split, JUDGED_ON - 8, tmp_path, seed=3, evaluation=evaluation(split, score))
    assert alike(weights_of(tmp_path), plain)
    assert len(shown) == 3
    assert not list(tmp_path.glob("best_*"))
    assert all(set(found.image_ids) <= set(JUDGED_ON) and len(found) for found in shown)
    seen = detect(Detector.load(tmp_path), split, JUDGED_ON)
    for name in ("image_ids", "boxes_xyxy", "scores", "category_ids"):  # the last look was at the finished detector
        np.testing.assert_array_equal(getattr(shown[-1], name), getattr(seen, name))
    assert (card.chosen_on, card.patience, card.best_step, card.last_step) == ((), 0, None, 6)


def test_the_looks_are_no_part_of_the_plan_unless_they_choose(split, tmp_path):
    train(short(), "tiny", split, JUDGED_ON - 8, tmp_path, seed=3)
    score, shown = told(0.1)
    train(short(), "tiny", split, JUDGED_ON - 8, tmp_path, seed=3, evaluation=evaluation(split, score))
    assert not shown  # done already
    with pytest.raises(InputError, match=r"patience: 0 there, 2 wanted"):
        train(short(), "tiny", split, JUDGED_ON - 8, tmp_path, seed=3, evaluation=evaluation(split, score, patience=2))


def test_the_best_weights_are_taken_and_the_card_says_by_which_photos(split, tmp_path):
    score, _ = told(0.1, 0.3, 0.2)
    with_patience = evaluation(split, score, patience=5)
    card = train(short(), "tiny", split, JUDGED_ON - 8, tmp_path / "best", seed=3, evaluation=with_patience)
    assert (card.best_step, card.best_ap, card.last_step, card.num_steps) == (4, 0.3, 6, 6)
    assert card.chosen_on[0].num_photos == 4
    assert card.chosen_on[0].fingerprint == split.fingerprint
    assert card.evaluate_every == 2
    assert not list((tmp_path / "best").glob("best_*"))
    # Cut off at the sixth step, another run of the same schedule has the same fourth.
    score, _ = told(0.1, 0.3, 0.3)
    stops = evaluation(split, score, patience=1)
    other = train(short(), "tiny", split, JUDGED_ON - 8, tmp_path / "stopped", seed=3, evaluation=stops)
    assert (other.best_step, other.last_step) == (4, 6)
    assert alike(weights_of(tmp_path / "best"), weights_of(tmp_path / "stopped"))


def test_what_was_best_before_the_last_look_is_not_left_behind(split, tmp_path):
    score, _ = told(0.1, 0.2, 0.3)
    settings = evaluation(split, score, patience=5)
    card = train(short(), "tiny", split, JUDGED_ON - 8, tmp_path, seed=3, evaluation=settings)
    assert card.best_step == 6
    assert not list(tmp_path.glob("best_*"))


@pytest.mark.parametrize(("damage", "what"), [("unlink", "missing"), ("write_bytes", "damaged")])
def test_lost_best_weights_are_named(damage, what, split, tmp_path):
    figures = iter([0.3, 0.2, 0.1])

    def score(found):
        figure = next(figures)
        if figure == 0.1:
            (best,) = tmp_path.glob("best_*.pt")
            best.unlink() if damage == "unlink" else best.write_bytes(b"PK rubbish")
        return BoxAP(figure, 0.5, None, None, None, None)

    with pytest.raises(InputError, match=rf"best_0000002\.pt: the best weights of the training are {what}.*--force"):
        train(short(), "tiny", split, JUDGED_ON - 8, tmp_path, seed=3, evaluation=evaluation(split, score, patience=5))


def test_patience_ends_it_early(split, tmp_path):
    score, shown = told(0.3, 0.2, 0.4)
    card = train(
        short(), "tiny", split, JUDGED_ON - 8, tmp_path, seed=3, evaluation=evaluation(split, score, patience=1)
    )
    assert (card.best_step, card.last_step, len(shown)) == (2, 4, 2)


@pytest.mark.parametrize("name", ["CascadeMaskRCNN", "RetinaNet-R101-FPN"])
def test_a_network_learns_on_after_it_was_looked_with(name, split):
    plan = DetectorPlan.of(short(name), "tiny", split, JUDGED_ON, 1, None)
    network = fresh_network(plan, None)
    network.train()
    head = getattr(network.model, "roi_head", None) or network.model.bbox_head
    before = (
        network.learns_masks,
        dict(head.test_cfg),
        set(network.state_dict()),
        [m.training for m in network.modules()],
    )
    with as_in_use(network, plan):
        assert not network.training
        assert not network.learns_masks
        assert head.test_cfg.score_thr == plan.recipe.score_threshold
    assert before == (
        network.learns_masks,
        dict(head.test_cfg),
        set(network.state_dict()),
        [m.training for m in network.modules()],
    )


def test_what_cannot_be_judged_on_is_refused(split):
    with pytest.raises(InputError, match="has no annotations, so no detector can be judged"):
        Evaluation(replace(split, items=None), JUDGED_ON, lambda _: None)
    with pytest.raises(InputError, match="none of the 2 photos"):
        Evaluation(split, np.array([98, 99]), lambda _: None)
    with pytest.raises(InputError, match="patience of 0 or more, got 0 and 2"):
        evaluation(split, lambda _: None, every=0, patience=2)


def test_an_epoch_in_steps(split):
    every = evaluation(split, lambda _: None, every=None)
    assert (every.steps(1600, 16), every.steps(3, 16), every.steps(40, 16)) == (100, 1, 2)
    assert evaluation(split, lambda _: None, every=7).steps(1600, 16) == 7


def test_the_real_average_precision_is_logged(split, tmp_path):
    def score(found):
        return box_ap(split.items, found, JUDGED_ON)

    train(short(), "tiny", split, JUDGED_ON, tmp_path, seed=3, evaluation=evaluation(split, score, every=6))
    header, row = (tmp_path / "logs" / "from_step_0" / "metrics.csv").read_text().splitlines()[:2]
    values = dict(zip(header.split(","), row.split(","), strict=True))
    assert 0 <= float(values["val/AP"]) <= float(values["val/AP50"]) <= 1
