import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.artifacts import file_sha256
from harness.data.garments import garments_of
from harness.retrieval.card import RetrieverCard
from harness.retrieval.cgd import CGD
from harness.retrieval.initial_weights import find, initialise
from harness.retrieval.training import train
from harness.training.cards import read_trained
from harness.types import InputError

SMALL = {"channels": [8, 16, 16, 24], "stem_width": 8}


def small(descriptors=("GeM", "MAC"), output_dim=10, seed=1, options=SMALL, **more):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CGD("resnet10t", descriptors, output_dim, backbone_options=options, **more)


def timm_state(seed=2):
    """What timm would publish of the small network: with a classifier of its own."""
    import timm

    torch.manual_seed(seed)
    return timm.create_model("resnet10t", num_classes=7, **SMALL).state_dict()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    return folder


def test_none_leaves_everything_as_drawn():
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    record = initialise(network, "none")
    assert (record.what, record.sha256, record.left_as_drawn) == ("none", None, ())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_file_of_timms_is_taken_over_but_for_its_classifier(tmp_path, ending):
    given = timm_state()
    path = tmp_path / f"weights.{ending}"
    save_file(given, path) if ending == "safetensors" else torch.save({"state_dict": given}, path)
    network = small(num_classes=4)
    drawn = network.classifier[1].weight.clone()
    record = initialise(network, str(path))
    assert (record.what, record.sha256) == (path.name, file_sha256(path))
    own = network.backbone.state_dict()
    assert own
    assert all(torch.equal(own[name], given[name]) for name in own)
    assert torch.equal(network.classifier[1].weight, drawn)
    parts = {name.split(".")[0] for name in record.left_as_drawn}
    assert parts == {"poolings", "projections", "classifier"}


def test_another_model_trained_here_gives_what_fits(trained: Path, recipe):
    settings = recipe.at("tiny")
    donor = torch.load(trained / "weights.pt", weights_only=True)
    network = CGD.of(settings, num_classes=99)
    record = initialise(network, str(trained))
    assert record.what == trained.name
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in donor.items())
    assert {name.split(".")[0] for name in record.left_as_drawn} == {"classifier"}
    # Other descriptors: the first keeps its shape, the others have none to take over.
    wider = settings.model_copy(update={"descriptors": ("GeM",)})
    assert initialise(CGD.of(wider), str(trained)).left_as_drawn == ("projections.0.weight",)


def test_the_last_checkpoint_of_a_training(trained: Path, recipe, tmp_path: Path):
    state = torch.load(trained / "weights.pt", weights_only=True)
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {f"network.{name}": value for name, value in state.items()}}, path)
    network = CGD.of(recipe.at("tiny"))
    assert initialise(network, str(path)).left_as_drawn == ()
    assert torch.equal(network.state_dict()["projections.0.weight"], state["projections.0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {"strange": torch.zeros(1)}, r"\d+ of its \d+ tensors are missing .*1 are unknown"),
        (lambda state: {k: v for k, v in state.items() if "layer3" not in k}, "are missing .first backbone.layer3"),
        (lambda state: state | {"layer1.0.extra.weight": torch.zeros(2)}, "1 are unknown .first backbone.layer1.0.ex"),
        (lambda state: state | {"conv1.0.weight": torch.zeros(9, 3, 3, 3)}, r"\(9, 3, 3, 3\) instead of \(6, 3, 3, 3"),
    ],
)
def test_weights_of_another_backbone_are_refused_and_change_nothing(tmp_path: Path, change, message):
    path = tmp_path / "foreign.pt"
    torch.save(change(timm_state()), path)
    network = small()
    before = network.backbone.state_dict()["layer2.0.conv1.weight"].clone()
    with pytest.raises(InputError, match=rf"{path}: not the weights of backbone resnet10t: .*{message}"):
        initialise(network, str(path))
    assert torch.equal(network.backbone.state_dict()["layer2.0.conv1.weight"], before)


def test_what_is_no_checkpoint_is_named(tmp_path: Path):
    for name in ("damaged.pt", "damaged.safetensors"):
        (tmp_path / name).write_bytes(b"not a state dict")
        with pytest.raises(InputError, match=f"{name}: cannot be read as a state dict"):
            initialise(small(), str(tmp_path / name))
    with pytest.raises(InputError, match=r"missing.pt: there are no initial weights; .*imagenet, none"):
        initialise(small(), str(tmp_path / "missing.pt"))
    with pytest.raises(InputError, match=r"expected the folder of a trained retrieval model.*last\.ckpt"):
        initialise(small(), str(tmp_path))


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_file_is_run(tmp_path: Path):
    path, sprung = tmp_path / "trap.pt", tmp_path / "sprung"
    path.write_bytes(pickle.dumps({"state_dict": _Trap(sprung)}))
    with pytest.raises(InputError):
        initialise(small(), str(path))
    assert not sprung.exists()


def test_imagenet_without_a_network_says_which_file_belongs_where(hub, monkeypatch):
    def no_network(*args, **more):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    address = "https://huggingface.co/timm/resnet152d.ra2_in1k/resolve/main/model.safetensors"
    place = hub / "resnet152d.ra2_in1k.safetensors"
    with pytest.raises(InputError) as refusal:
        find("imagenet", "resnet152d")
    message = str(refusal.value)
    assert "no route to host" in message
    assert f"put the file from {address} at {place}" in message
    assert "--init-from" in message
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set.*put the file from"):
        find("imagenet", "resnet152d")


def test_imagenet_takes_the_file_that_was_put_there_or_fetches_it_once(hub, monkeypatch, tmp_path):
    place = hub / "resnet10t.c3_in1k.safetensors"
    fetched = []

    def fetch(address, path, **more):
        fetched.append(address)
        save_file(timm_state(), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        network = small()
        record = initialise(network, "imagenet")
        assert record.what == "imagenet (resnet10t.c3_in1k.safetensors)"
    assert fetched == ["https://huggingface.co/timm/resnet10t.c3_in1k/resolve/main/model.safetensors"]
    assert torch.equal(network.backbone.state_dict()["conv1.0.weight"], timm_state()["conv1.0.weight"])
    place.write_bytes(place.read_bytes()[:-100])  # a download that was cut off
    with pytest.raises(InputError, match=r"resnet10t\.c3_in1k\.safetensors: cannot be read"):
        initialise(small(), "imagenet")


def test_hugging_faces_own_cache_is_used(hub, monkeypatch, tmp_path):
    kept = tmp_path / "hf" / "models--timm--resnet10t.c3_in1k"
    (kept / "snapshots" / "abc").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    save_file(timm_state(), kept / "snapshots" / "abc" / "model.safetensors")
    assert find("imagenet", "resnet10t") == kept / "snapshots" / "abc" / "model.safetensors"


def test_nothing_is_published_for_some_backbones(hub):
    with pytest.raises(InputError, match="publishes no weights for botnet50ts_256"):
        find("imagenet", "botnet50ts_256")


def test_positions_of_a_vision_transformer_are_fitted_to_another_size(tmp_path: Path):
    import timm

    small_vit = {"embed_dim": 32, "depth": 1, "num_heads": 2}
    published = timm.create_model("vit_tiny_patch16_224", num_classes=3, **small_vit).state_dict()
    save_file(published, tmp_path / "vit.safetensors")
    network = CGD(
        "vit_tiny_patch16_224", ["GeM"], 8, backbone_options={**small_vit, "img_size": 96}, remove_last_stride=False
    )
    initialise(network, str(tmp_path / "vit.safetensors"))
    assert network.backbone.pos_embed.shape[1] == 1 + 6 * 6
    assert torch.equal(network.backbone.pos_embed[:, 0], published["pos_embed"][:, 0])


def test_force_throws_nothing_away_for_weights_that_cannot_be_had(trained: Path, recipe, train_split, tmp_path: Path):
    folder = tmp_path / "m12"
    shutil.copytree(trained, folder)
    torch.save({"conv1.0.weight": torch.zeros(3)}, tmp_path / "foreign.pt")
    parts = [garments_of(train_split, train_split.photos.image_ids)]

    def again(init_from):
        return train(
            "m12", recipe, "tiny", parts, folder, seed=9, deepfashion2_only=True, init_from=init_from, force=True
        )

    for init_from, message in [
        (tmp_path / "foreign.pt", "not the weights of backbone"),
        (tmp_path / "nowhere.pt", "there are no initial weights"),
        (folder, "--force would throw these initial weights away"),
        (folder / "weights.pt", "--force would throw these initial weights away"),
    ]:
        with pytest.raises(InputError, match=message):
            again(init_from)
    assert read_trained(folder, RetrieverCard).seed == 1
    assert again(trained).initial_weights == trained.name
