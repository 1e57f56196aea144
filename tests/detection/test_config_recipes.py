from __future__ import annotations

import json

import pytest
import torch

from harness.detection.bridge import Network, Targets
from harness.detection.choice import chosen_recipe
from harness.detection.config_recipes import recipe_of_config, self_contained
from harness.detection.inference import Detector, detect
from harness.detection.recipes import DetectorScale, load_recipes
from harness.detection.training import train
from harness.types import InputError

SMALL_FCOS = """
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
model = dict(
    backbone=dict(depth=18, base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=32),
    bbox_head=dict(in_channels=32, feat_channels=64, stacked_convs=1),
    test_cfg=dict(score_thr=0.001, max_per_img=30))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomChoiceResize', scales=[(128, 96), (128, 128)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=[dict(type='Resize', scale=(160, 128), keep_ratio=True)]))
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "my_fcos.py"
    path.write_text(SMALL_FCOS)
    return path


@pytest.fixture
def untried(monkeypatch):
    """Reading alone, where the network's trial step is not the question."""
    from harness.detection import trial

    monkeypatch.setattr(trial, "try_out", lambda scale, where: None)


def tuple_of(values):
    return {"_tuple_": values}


def test_what_a_config_says_is_followed(config, untried):
    recipe, notes = recipe_of_config("Mine", str(config))
    full = recipe.full
    assert recipe.name == "Mine"
    assert recipe.published is None
    assert notes == ["optim_wrapper.paramwise_cfg: bias_lr_mult 2.0, bias_decay_mult 0.0: left out"]
    assert full.config == ""
    assert full.model["type"] == "FCOS"
    assert full.input_px == (160, 128)
    assert full.transforms == (
        {"type": "RandomChoiceResize", "scales": [tuple_of([128, 96]), tuple_of([128, 128])], "keep_ratio": True},
        {"type": "RandomFlip", "prob": 0.5},
    )
    optimiser = full.optimiser
    assert (optimiser.kind, optimiser.learning_rate, optimiser.momentum, optimiser.weight_decay) == (
        "sgd",
        0.01,
        0.9,
        1e-4,
    )
    assert (full.batch_size, full.num_epochs, full.gradient_clip, full.precision) == (16, 12, 35, "32-true")
    assert (full.schedule, full.warmup_steps, full.milestones) == ("steps", 500, (8 / 12, 11 / 12))
    assert (full.score_threshold, full.max_per_image) == (0.001, 30)
    assert DetectorScale.model_validate_json(full.model_dump_json()) == full
    with pytest.raises(InputError, match="there is 'full'"):
        recipe.at("tiny")


def test_a_user_config_trains_and_looks_after_its_file_is_gone(config, split, tmp_path):
    recipe, _ = chosen_recipe("Mine", "full", config=str(config), batch_size=4)
    recipe = recipe.changed("full", recipe.full.model_copy(update={"num_workers": 0}))
    card = train(recipe, "full", split, split.photos.image_ids, tmp_path / "model", seed=1, num_steps=2)
    elsewhere = tmp_path / "elsewhere" / "same.py"
    elsewhere.parent.mkdir()
    config.rename(elsewhere)
    again, _ = chosen_recipe("Mine", "full", config=str(elsewhere), batch_size=4)
    again = again.changed("full", again.full.model_copy(update={"num_workers": 0}))
    assert train(again, "full", split, split.photos.image_ids, tmp_path / "model", seed=1, num_steps=2) == card
    elsewhere.unlink()
    found = detect(Detector.load(tmp_path / "model"), split, split.photos.image_ids[:4])
    assert set(found.image_ids.tolist()) <= {1, 2, 3, 4}


CENTERNET = "centernet/centernet_r18_8xb16-crop512-140e_coco.py"
CENTERNET_DCN = "centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco.py"
YOLOX = "yolox/yolox_tiny_8xb8-300e_coco.py"
RTMDET = "rtmdet/rtmdet_tiny_8xb32-300e_coco.py"


@pytest.mark.parametrize(
    "config",
    [
        CENTERNET,
        CENTERNET_DCN,
        "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
        "gfl/gfl_r50_fpn_1x_coco.py",
        "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
        YOLOX,
        RTMDET,
        "tood/tood_r50_fpn_1x_coco.py",  # asks for the epoch
        pytest.param("deformable_detr/deformable-detr_r50_16xb2-50e_coco.py", marks=pytest.mark.slow),
        pytest.param("detr/detr_r50_8xb2-150e_coco.py", marks=pytest.mark.slow),
    ],
)
def test_detectors_of_other_kinds_learn_and_look(config, split, untried):
    from harness.detection.dataset import DetectionDataset

    recipe, _ = recipe_of_config("Mine", config)
    settings = recipe.full.with_input((128, 96))
    torch.manual_seed(0)
    network = Network("", settings.model)
    network.initialise()
    network.train()
    dataset = DetectionDataset(split, split.photos.image_ids, settings, 0, network.padding_rgb, network.learns_masks)
    batch = dataset.collate([dataset[(0, row)] for row in range(2)])
    assert max(batch.photos_BHW3.shape[1:3]) <= 224  # YOLOX trains on larger photos than it looks at
    losses = network.losses(batch.photos_BHW3, batch.targets)
    loss = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(loss)
    loss.backward()
    slopes = [one.grad for one in network.parameters() if one.grad is not None]
    assert len(slopes) > 10
    assert all(torch.isfinite(slope).all() for slope in slopes)
    network.limit(0.0, 7)
    network.only_boxes()
    found = network.eval().predict(torch.randint(0, 255, (1, 96, 128, 3), dtype=torch.uint8), [(96, 120)])[0]
    assert len(found.scores) <= 7
    assert torch.isfinite(found.boxes_xyxy).all()
    assert set(found.category_ids.tolist()) <= set(range(1, 14))


def test_the_classic_centernet_repeats_its_data_five_times(untried):
    recipe, notes = recipe_of_config("Mine", CENTERNET)
    full = recipe.full
    assert notes == []
    assert full.num_epochs == 28 * 5
    assert full.batch_size == 128
    assert full.input_px == (512, 512)  # its test photos keep their size, so that of training counts
    assert full.max_per_image == 100


def test_what_mixes_photos_is_left_out_and_told(untried):
    recipe, notes = recipe_of_config("Mine", YOLOX)
    kinds = [step["type"] for step in recipe.full.transforms]
    assert kinds == ["YOLOXHSVRandomAug", "RandomFlip", "Resize", "Pad", "FilterAnnotations"]
    assert any("Mosaic" in note and "left out: Mosaic, RandomAffine" in note for note in notes)
    assert "optim_wrapper.paramwise_cfg: norm_decay_mult 0.0, bias_decay_mult 0.0: left out" in notes
    assert recipe.full.schedule == "cosine"
    recipe, notes = recipe_of_config("Mine", RTMDET)
    assert [step["type"] for step in recipe.full.transforms][:2] == ["RandomResize", "RandomCrop"]
    assert any("last epochs are used throughout" in note for note in notes)
    assert any("8 GPUs of 32 photos" in note for note in notes)
    assert not any("paramwise" in note for note in notes)  # norms and biases do not decay, as AdamW has it here
    assert (recipe.full.optimiser.kind, recipe.full.batch_size) == ("adamw", 256)


def test_coco_weights_of_a_config_of_the_wheel_are_known(untried):
    from harness.detection.initial_weights import address_of

    recipe, _ = recipe_of_config("Mine", "gfl/gfl_r50_fpn_1x_coco.py")
    assert address_of("coco", recipe.full).endswith("/gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth")
    assert address_of("imagenet", recipe.full).endswith("/resnet50-0676ba61.pth")


def test_a_users_load_from_is_what_coco_means(config, untried):
    from harness.detection.initial_weights import address_of

    config.write_text(SMALL_FCOS + "load_from = 'https://example.org/w-01234567.pth'")
    assert address_of("coco", recipe_of_config("Mine", str(config))[0].full) == "https://example.org/w-01234567.pth"


def test_a_slower_backbone_is_read(untried):
    recipe, notes = recipe_of_config("Mine", "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py")
    assert recipe.full.optimiser.backbone_factor == 0.1
    assert recipe.full.gradient_clip == 0.1
    assert recipe.full.batch_size == 32
    assert any("sampling_offsets, reference_points" in note for note in notes)


def test_tuples_come_back_as_tuples():
    from harness.detection.configs import from_plain, plain

    value = {"a": (1, [2, (3,)]), "b": [{"c": ()}]}
    assert from_plain(json.loads(json.dumps(plain(value, "x")))) == value


def test_a_network_that_refuses_lists_is_built(untried):
    Network("", recipe_of_config("Mine", "ssd/ssd300_coco.py")[0].full.model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(", "cannot be read as an mmdet config: SyntaxError"),
        ("raise ValueError('no luck')", "cannot be read as an mmdet config: ValueError: no luck"),
        ("_base_ = 'mmdet::nothing/at_all.py'", "cannot be read as an mmdet config"),
        ("_base_ = './gone.py'", "cannot be read as an mmdet config"),
        ("a = 1", "expected an mmdet config with a 'model'"),
        ("model = dict(backbone=dict(type='ResNet'))", "expected an mmdet config with a 'model' that has a 'type'"),
        ("model = dict(type='NoSuchDetector')", "mmdet cannot build it.*NoSuchDetector"),
        (SMALL_FCOS.replace("depth=18", "depth=19"), "mmdet cannot build it"),
        (SMALL_FCOS.replace("depth=18", "depths=18"), "mmdet cannot build it.*depths"),
        (SMALL_FCOS.replace("[8, 16, 32, 64]", "[8, 16, 32, 65]"), "it cannot be trained and used here: RuntimeError"),
        (
            SMALL_FCOS + "optim_wrapper = dict(optimizer=dict(lr=-1.0))",
            r"optimiser\.learning_rate: .*greater than 0, got -1",
        ),
        (SMALL_FCOS.replace("'RandomFlip'", "'NoSuch'"), r"transforms\[1\] \(NoSuch\): mmdet cannot make it"),
        (
            SMALL_FCOS.replace("'RandomFlip', prob=0.5", "'FixShapeResize', width=-5, height=9"),
            r"transforms\[1\] \(FixShapeResize\) of a photo of 352x352 px fails",
        ),
        (SMALL_FCOS + "param_scheduler = 'none'", "a part of it is not as mmdet 3 has it: AttributeError"),
        ("model = dict(type='FCOS')\ndata = dict(train=dict())", "config of mmdet 2"),
        (SMALL_FCOS + "model['odd'] = float('inf')", "expected a number, a text, a list or a dict"),
    ],
)
def test_a_broken_config_is_named(tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"broken\.py.*{message}"):
        recipe_of_config("Mine", str(path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("rpn/rpn_r50_fpn_1x_coco.py", "proposes regions without categories"),
        ("solo/solo_r50_fpn_1x_coco.py", "masks without boxes"),
        ("panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py", "panoptic"),
        ("atss/nothing.py", r"none inside mmdet's wheel; atss holds .*atss_r50_fpn_1x_coco\.py"),
        ("nothing.py", "none inside mmdet's wheel; its configs have names such as atss/"),
    ],
)
def test_what_is_no_detector_of_boxes_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        recipe_of_config("Mine", config)


@pytest.mark.parametrize(
    "name", ["GT", "gt", "WBF_6", "wbf", "ATSS", "atss", "", "9lives", "a b", "a/b", "..", "backbones", "x" * 101]
)
def test_names_that_cannot_be_taken(config, name):
    with pytest.raises(InputError, match="detector name"):
        recipe_of_config(name, str(config))


def test_a_recipe_file_may_name_a_config_beside_it(config, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[detectors.Mine.full]\nconfig = "my_fcos.py"\nnum_steps = 9\nmodel = { neck = { num_outs = 4 } }\n'
    )
    recipe, notes = chosen_recipe("Mine", "full", recipes=path)
    assert notes == []
    defaults = load_recipes()["ATSS"].full
    assert recipe.full.optimiser == defaults.optimiser  # what the file leaves out is as in [defaults.full]
    assert recipe.full.transforms == defaults.transforms
    assert (recipe.full.num_steps, recipe.full.num_epochs) == (9, None)
    assert recipe.tiny is None
    whole = self_contained(recipe.full)
    assert whole.config == ""
    assert whole.model["type"] == "FCOS"
    assert whole.model["neck"]["num_outs"] == 4
    json.dumps(whole.model)
    path.write_text('[detectors.ATSS.full]\nconfig = "my_fcos.py"\n')
    with pytest.raises(InputError, match="detector name 'ATSS'"):
        chosen_recipe("ATSS", "full", recipes=path)


def test_a_config_of_the_wheel_stays_a_name():
    full = load_recipes()["ATSS"].full
    assert self_contained(full) is full


def test_batch_size_and_input_change_what_goes_with_them():
    recipe, notes = chosen_recipe("ATSS", "full", batch_size=4, input_px="640x384")
    full = recipe.full
    assert full.optimiser.learning_rate == pytest.approx(0.0025)
    assert full.steps(1600) == 4800
    assert full.input_px == (640, 384)
    assert full.transforms[1]["scales"][0] == [640, 307]
    assert full.transforms[1]["scales"][-1] == [640, 384]
    assert notes == ["--batch-size 4 instead of 16: the learning rate goes from 0.01 to 0.0025"]
    tiny, _ = chosen_recipe("ATSS", "tiny", batch_size=24)
    assert tiny.tiny.num_steps == 275


@pytest.mark.parametrize("given", ["big", "100", "31x31", "300x400", "0x0", "-5x3", "1333 x 800"])
def test_an_impossible_input_is_refused(given):
    with pytest.raises(InputError, match="--input"):
        chosen_recipe("ATSS", "full", input_px=given)


def test_options_that_exclude_one_another(config, tmp_path):
    with pytest.raises(InputError, match="give one of the two"):
        chosen_recipe("Mine", "full", config=str(config), recipes=tmp_path / "x.toml")
    with pytest.raises(InputError, match="leave out --scale tiny"):
        chosen_recipe("Mine", "tiny", config=str(config))
    with pytest.raises(InputError, match=r"unknown detector 'Mine'.*--config FILE"):
        chosen_recipe("Mine", "full")


def test_masks_are_learnt_where_a_config_has_them(untried):
    recipe, _ = recipe_of_config("Mine", "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py")
    network = Network("", recipe.full.model)
    with pytest.raises(ValueError, match="learns masks"):
        network.losses(torch.zeros(1, 96, 96, 3, dtype=torch.uint8), [Targets(torch.rand(1, 4), torch.tensor([1]))])
