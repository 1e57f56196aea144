from __future__ import annotations

import pickle
from collections import OrderedDict
from hashlib import sha256

import pytest
import torch

from harness.detection.card import DetectorCard, DetectorPlan
from harness.detection.initial_weights import address_of, find, take_over
from harness.detection.recipes import load_recipes
from harness.detection.training import fresh_network, train
from harness.training.checkpoints import read_tensors
from harness.training.downloads import fetched
from harness.types import InputError

ZOO = "https://download.openmmlab.com/mmdetection/v2.0/"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def short(name="ATSS", **more):
    recipe = load_recipes()[name]
    settings = {"batch_size": 2, "num_steps": 1, "pretraining": None, **more}
    return recipe.model_copy(update={"tiny": recipe.tiny.model_copy(update=settings)})


def network_of(split, name="ATSS", seed=1):
    return fresh_network(DetectorPlan.of(short(name), "tiny", split, split.photos.image_ids, seed, 1), None)


def published(folder, content: bytes, name="weights"):
    path = folder / f"{name}-{sha256(content).hexdigest()[:8]}.pth"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ATSS", "atss/atss_r101_fpn_1x_coco/atss_r101_fpn_1x_20200825-dfcadd6f.pth"),
        (
            "CascadeMaskRCNN",
            "cascade_rcnn/cascade_mask_rcnn_r101_fpn_1x_coco/cascade_mask_rcnn_r101_fpn_1x_coco_20200203-befdf6ee.pth",
        ),
        ("RetinaNet-R101-FPN", "retinanet/retinanet_r101_fpn_1x_coco/retinanet_r101_fpn_1x_coco_20200130-7a93545f.pth"),
        (
            "RetinaNet-X101-FPN",
            "retinanet/retinanet_x101_64x4d_fpn_1x_coco/retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth",
        ),
    ],
)
def test_coco_is_the_model_zoos_checkpoint_of_the_recipes_config(name, file):
    assert address_of("coco", load_recipes()[name].full) == ZOO + file


def test_centernet_has_no_checkpoint_in_the_zoo():
    with pytest.raises(InputError, match=r"zoo has no checkpoint for config centernet/.*--init-from imagenet"):
        address_of("coco", load_recipes()["CenterNet"].full)


def test_imagenet_is_the_backbone_that_the_config_names():
    found = {name: address_of("imagenet", recipe.full) for name, recipe in load_recipes().items()}
    resnet = "https://download.pytorch.org/models/resnet101-63fe2227.pth"
    resnext = "https://download.openmmlab.com/pretrain/third_party/resnext101_64x4d-ee2c6f71.pth"
    assert set(found.values()) == {resnet, resnext}
    assert found["RetinaNet-X101-FPN"] == resnext


def test_nothing_fits_a_recipe_that_changes_the_backbone():
    for asked in ("coco", "imagenet"):
        with pytest.raises(InputError, match="changes the backbone"):
            address_of(asked, load_recipes()["ATSS"].tiny)


def test_what_is_fetched_is_kept_and_used_without_a_network(tmp_path, hub):
    source = published(tmp_path, b"the weights")
    path = fetched(source.as_uri())
    assert path == hub / source.name
    assert path.read_bytes() == b"the weights"
    source.unlink()
    assert fetched(source.as_uri()) == path
    assert [one.name for one in hub.iterdir() if not one.name.endswith(".lock")] == [path.name]  # no temporary files


def test_what_is_damaged_is_not_used(tmp_path, hub):
    source = published(tmp_path, b"the weights")
    source.write_bytes(b"other bytes")
    with pytest.raises(InputError, match="what came is damaged"):
        fetched(source.as_uri())
    assert not (hub / source.name).exists()
    (hub / source.name).write_bytes(b"half of the wei")
    with pytest.raises(InputError, match=r"is damaged: its name says that its SHA-256 begins \w{8}.*remove the file"):
        fetched(source.as_uri())


def test_without_a_network_the_message_says_which_file_from_where_to_where(monkeypatch, hub):
    def offline(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError) as caught:
        find("coco", load_recipes()["ATSS"].full)
    told = str(caught.value)
    assert told.startswith("atss_r101_fpn_1x_20200825-dfcadd6f.pth: cannot be fetched (Network is unreachable)")
    assert ZOO in told
    assert str(hub / "atss_r101_fpn_1x_20200825-dfcadd6f.pth") in told
    assert "--init-from" in told


class Log:
    """Stands for mmengine's log buffers, which torch refuses to load."""

    def __init__(self):
        self.losses = [1.0, 2.0]


def of_80_classes(network):
    """A zoo checkpoint of the same network for COCO."""
    weights = OrderedDict((name, value + 1) for name, value in network.model.state_dict().items())
    for name, value in weights.items():
        if "atss_cls" in name:
            weights[name] = torch.zeros(80, *value.shape[1:])
    return weights


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("meta", [{"CLASSES": ("person",), "config": "model = dict()"}, {"log": Log()}])
def test_a_zoo_checkpoint_gives_all_but_the_class_layers(split, tmp_path, meta, legacy):
    network = network_of(split)
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    given = of_80_classes(network)
    path = tmp_path / "zoo.pth"
    torch.save({"meta": meta, "state_dict": given}, path, _use_new_zipfile_serialization=not legacy)
    left = take_over(network, path)
    assert left == ("bbox_head.atss_cls.weight", "bbox_head.atss_cls.bias")
    after = network.model.state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name] if name in left else given[name]), name


def test_nothing_in_a_checkpoint_is_run(split, tmp_path):
    class Nasty:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    path = tmp_path / "nasty.pth"
    network = network_of(split)
    torch.save({"meta": Nasty(), "state_dict": of_80_classes(network)}, path)
    assert take_over(network, path)
    assert not (tmp_path / "written").exists()
    path.write_bytes(pickle.dumps(Nasty()))
    with pytest.raises(InputError, match=r"nasty\.pth: "):
        take_over(network, path)
    assert not (tmp_path / "written").exists()


def test_names_of_older_versions_are_converted(split, tmp_path):
    """FCOS of early mmdet called its class layer fcos_cls; today's head knows that."""
    from harness.detection.bridge import Network

    tiny = {"backbone": {"depth": 18, "base_channels": 8}, "neck": {"in_channels": [8, 16, 32, 64]}}
    network = Network("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", tiny)
    network.initialise()
    given = {name: value + 1 for name, value in network.model.state_dict().items()}
    old = {name.replace("conv_cls", "fcos_cls").replace("conv_reg", "fcos_reg"): v for name, v in given.items()}
    assert set(old) != set(given)
    torch.save({"state_dict": old}, tmp_path / "old.pth")
    assert take_over(network, tmp_path / "old.pth") == ()
    assert torch.equal(network.model.bbox_head.conv_cls.weight, given["bbox_head.conv_cls.weight"])


def test_a_bare_backbone_is_taken_whatever_its_classifier(split, tmp_path):
    network = network_of(split)
    bare = {name[9:]: v + 1 for name, v in network.model.state_dict().items() if name.startswith("backbone.")}
    torch.save({**bare, "fc.weight": torch.zeros(1000, 8)}, tmp_path / "bare.pth")
    left = take_over(network, tmp_path / "bare.pth")
    assert not [name for name in left if name.startswith("backbone.")]
    assert torch.equal(network.model.backbone.conv1.weight, bare["conv1.weight"])


def test_swin_is_taken_from_its_authors_names(tmp_path):
    from harness.detection.bridge import Network

    backbone = {"embed_dims": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
    changes = {"backbone": backbone, "neck": {"in_channels": [24, 48, 96, 192]}}
    network = Network("swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py", changes)
    ours = {name: v + 1 for name, v in network.model.backbone.state_dict().items() if not name.startswith("norm")}
    renamed = {}
    for name, value in ours.items():
        for mine, theirs in (
            ("stages.", "layers."),
            ("attn.w_msa.", "attn."),
            ("ffn.layers.0.0.", "mlp.fc1."),
            ("ffn.layers.1.", "mlp.fc2."),
            ("projection", "proj"),
        ):
            name = name.replace(mine, theirs)
        renamed[name] = value
    torch.save({"model": {**renamed, "norm.weight": torch.ones(192), "head.weight": torch.ones(9)}}, tmp_path / "s.pth")
    left = take_over(network, tmp_path / "s.pth")
    assert {name.split(".")[1] for name in left if name.startswith("backbone.")} == {"norm0", "norm1", "norm2", "norm3"}
    taken = network.model.backbone.state_dict()
    same = [name for name in ours if torch.equal(taken[name], ours[name])]
    assert {name for name in ours if name not in same} <= {name for name in ours if "downsample" in name}


def test_a_deeper_or_shallower_backbone_is_refused(split, tmp_path):
    network = network_of(split)
    whole = {name[9:]: v for name, v in network.model.state_dict().items() if name.startswith("backbone.")}
    deeper = {**whole, "layer3.6.conv1.weight": torch.zeros(3, 3, 1, 1)}
    torch.save(deeper, tmp_path / "deeper.pth")
    with pytest.raises(InputError, match=r"it has backbone\.layer3\.6\.conv1\.weight.*another architecture"):
        take_over(network, tmp_path / "deeper.pth")
    torch.save({name: v for name, v in whole.items() if not name.startswith("layer4.1")}, tmp_path / "shallower.pth")
    with pytest.raises(InputError, match=r"fits \d+ of the backbone's \d+ tensors; these weights are of another"):
        take_over(network, tmp_path / "shallower.pth")


def test_the_card_says_what_was_taken(split, tmp_path, hub):
    network = network_of(split)
    content = tmp_path / "coco.pth"
    torch.save({"meta": {}, "state_dict": of_80_classes(network)}, content)
    source = published(tmp_path, content.read_bytes(), "coco")
    recipe = short(coco_weights=source.as_uri())
    whole = recipe.changed("tiny", recipe.tiny.model_copy(update={"config": "", "model": _whole(recipe.tiny)}))
    arguments = (whole, "tiny", split, split.photos.image_ids)
    card = train(*arguments, tmp_path / "named", seed=1, init_from="coco")
    assert isinstance(card, DetectorCard)
    assert card.initial_weights == source.name
    assert card.init_from_sha256 == sha256(source.read_bytes()).hexdigest()
    assert card.left_as_drawn == ("bbox_head.atss_cls.weight", "bbox_head.atss_cls.bias")
    by_path = train(*arguments, tmp_path / "path", seed=1, init_from=content)  # the same content is the same training
    assert by_path.weights_sha256 == card.weights_sha256
    assert by_path.init_from_sha256 == card.init_from_sha256


def _whole(scale):
    from harness.detection.configs import load_model_config, merged, plain

    return plain(merged(load_model_config(scale.config), scale.model), "model")


def test_none_skips_the_pretraining(split, tmp_path):
    settings = load_recipes()["ATSS"].tiny.pretraining
    arguments = (short(pretraining=settings), "tiny", split, split.photos.image_ids, tmp_path / "ATSS")
    card = train(*arguments, seed=1, init_from="none")
    assert card.recipe.pretraining is None
    assert card.initial_weights is None
    assert not (tmp_path / "backbones").exists()


def test_a_path_must_exist():
    with pytest.raises(InputError, match=r"nothing\.pth: there are no initial weights; .*coco, imagenet"):
        find("nothing.pth", load_recipes()["ATSS"].full)


@pytest.mark.parametrize("content", [b"", b"hello", b"0", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_is_named(content, tmp_path):
    # Read as a pickle, a text can be anything: "hello" asks for the 101st object that was remembered.
    path = tmp_path / "notes.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"notes\.pth: cannot be read as a state dict of tensors: \w+"):
        read_tensors(path)
