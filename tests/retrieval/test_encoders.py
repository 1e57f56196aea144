"""Published image encoders as models; weights are random, or a file of timm's form."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional

from harness.retrieval.cgd import normalise
from harness.retrieval.embedding import Retriever, embed
from harness.retrieval.encoders import EncoderCard, encoder_settings, enter_encoder
from harness.retrieval.loading import load_network, read_model_card
from harness.training.cards import read
from harness.types import InputError
from harness.workplace import Workplace
from tests.commands import ok, refused

VIT = "vit_tiny_patch16_224"


def test_an_encoder_gives_what_timm_gives(tmp_path: Path):
    torch.manual_seed(5)
    theirs = timm.create_model("vit_xsmall_patch16_clip_224", num_classes=3).eval()
    save_file(theirs.state_dict(), tmp_path / "clip.safetensors")
    settings = encoder_settings("vit_xsmall_patch16_clip_224")
    config = timm.data.resolve_model_data_config(theirs)
    assert settings.pixel_mean == config["mean"] != (0.485, 0.456, 0.406)
    assert settings.pixel_std == config["std"]
    assert settings.input_wh == (224, 224)
    card = enter_encoder("clip", settings, tmp_path / "clip", init_from=str(tmp_path / "clip.safetensors"))
    assert card.initial_weights.what == "clip.safetensors"
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    theirs.reset_classifier(0)
    with torch.inference_mode():
        expected = functional.normalize(theirs((pixels - mean) / std), dim=1)
        _, network = load_network(tmp_path / "clip")
        ours, _ = network.eval()(normalise(pixels))
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "input_wh", "dimensions"),
    [
        (VIT, (96, 64), 192),
        ("vit_small_patch14_dinov2", (70, 98), 384),
        ("resnet18", (64, 64), 512),
        ("convnext_atto", (64, 64), 320),
        ("mambaout_femto", (32, 64), 1152),
        ("mobilenetv3_small_100", (64, 64), 1024),
    ],
)
def test_encoders_of_many_families(tmp_path: Path, backbone, input_wh, dimensions):
    card = enter_encoder("it", encoder_settings(backbone, input_wh), tmp_path / "it", init_from="none")
    assert card.recipe.output_dim == dimensions
    assert card.recipe.input_wh == input_wh
    retriever = Retriever.load(tmp_path / "it")
    width, height = retriever.input_wh
    crops = np.random.default_rng(0).integers(0, 255, (2, height, width, 3), dtype=np.uint8)
    vectors = retriever.embed(crops)
    assert vectors.shape == (2, dimensions)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_dinov2_and_siglip_keep_what_they_were_published_with():
    dino = encoder_settings("vit_small_patch14_dinov2")
    assert (dino.input_wh, dino.output_dim, dino.pixel_mean) == ((518, 518), 384, (0.485, 0.456, 0.406))
    siglip = encoder_settings("vit_base_patch16_siglip_224")
    assert (siglip.input_wh, siglip.output_dim, siglip.pixel_mean) == ((224, 224), 768, (0.5, 0.5, 0.5))


def test_the_command_enters_a_model_that_is_like_any_other(tmp_path: Path, stripes_root: Path, validation_split):
    work = tmp_path / "work"
    said = ok("enter", "encoder", "vit", "--timm", VIT, "--init-from", "none", "--input", "64x64", "--work", work)
    assert "192 dimensions, crops of 64x64" in said
    card = Workplace(work).model_card("retriever", "vit")
    assert card.trained_on == ()
    assert card.summary == f"frozen {VIT} (random weights)"
    scored = json.loads(ok("score", "vit + GT", "--data", stripes_root, "--work", work, "--json"))
    assert scored["contamination"] is None
    boxes = validation_split.items.as_detections()
    retriever = Retriever.load(Workplace(work).model_folder("retriever", "vit"))
    assert embed([retriever], validation_split, boxes)["vit"].shape == (len(boxes), 192)
    board = ok("leaderboard", "show", "--work", work)
    assert "vit + GT" in board


def test_where_the_weights_come_from_is_in_the_card(tmp_path: Path):
    torch.manual_seed(5)
    save_file(timm.create_model(VIT, num_classes=3).state_dict(), tmp_path / "vit.safetensors")
    ok("enter", "encoder", "vit", "--timm", VIT, "--init-from", tmp_path / "vit.safetensors", "--work", tmp_path)
    card = read(tmp_path / "models" / "retrievers" / "vit" / "card.json", EncoderCard)
    assert card.initial_weights.sha256 is not None
    assert card.summary == f"frozen {VIT} (vit.safetensors, which photos trained it is unknown)"
    first = Workplace(tmp_path).model_card("retriever", "vit").identity
    again = ["enter", "encoder", "vit", "--timm", VIT, "--init-from", "none", "--work", tmp_path]
    assert "there is a model vit already" in refused(*again)
    ok(*again, "--force")
    assert Workplace(tmp_path).model_card("retriever", "vit").identity != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m4", "--timm", VIT], "m0 to m17 are the paper's"),
        (["my-vit", "--timm", VIT], "expected a letter"),
        (["vit", "--timm", "vit_tiny_patch16_225"], "near: vit_tiny_patch16_224"),
        (["vit", "--timm", VIT, "--input", "64"], "expected WIDTHxHEIGHT"),
        (["cross", "--timm", "crossvit_9_240", "--input", "64x64"], "it was published for 240x240"),
        (["vit", "--timm", VIT, "--init-from", "nowhere.pth"], "nowhere.pth: there are no initial weights"),
    ],
)
def test_what_cannot_be_entered(tmp_path: Path, arguments, message):
    assert message in refused("enter", "encoder", *arguments, "--work", tmp_path)
    assert not (tmp_path / "models").exists()


def test_names_differ_by_more_than_case(tmp_path: Path):
    ok("enter", "encoder", "vit", "--timm", VIT, "--init-from", "none", "--work", tmp_path)
    said = refused("enter", "encoder", "ViT", "--timm", VIT, "--init-from", "none", "--work", tmp_path)
    assert "there is a retriever vit here already" in said


def test_weights_of_another_network(tmp_path: Path, trained: Path):
    with pytest.raises(InputError, match="not the weights of backbone vit_tiny"):
        enter_encoder("vit", encoder_settings(VIT), tmp_path / "vit", init_from=str(trained))
    assert not (tmp_path / "vit").exists()


def test_trained_models_load_as_before_and_damaged_ones_are_named(tmp_path: Path, trained: Path):
    assert read_model_card(trained).kind == "retriever"
    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "copy" / "weights.pt").write_bytes(b"other")
    with pytest.raises(InputError, match="not the weights that"):
        load_network(tmp_path / "copy")
    (tmp_path / "copy" / "card.json").write_text("[]")
    with pytest.raises(InputError, match=r"card\.json"):
        load_network(tmp_path / "copy")


def test_a_team_models_name_differs_from_an_entered_ones_by_more_than_case(tmp_path: Path, stripes_root: Path):
    ok("enter", "encoder", "vit", "--timm", VIT, "--init-from", "none", "--work", tmp_path)
    (tmp_path / "ours.toml").write_text('[models.ViT]\nbase = "m0"\n')
    train = ("train", "retriever", "ViT", "--recipes", tmp_path / "ours.toml", "--data", stripes_root)
    assert "there is a retriever vit here already" in refused(*train, "--work", tmp_path, "--scale", "tiny")


def test_an_encoder_with_the_weights_of_a_model_trained_here_has_seen_its_photos(tmp_path: Path):
    torch.manual_seed(5)
    seen = {"fingerprint": "f", "split": "validation", "num_photos": 7, "image_ids_sha256": "0", "rendered": True}
    theirs = tmp_path / "m99"
    theirs.mkdir()
    network = timm.create_model(VIT, num_classes=0)
    torch.save({f"backbone.{name}": value for name, value in network.state_dict().items()}, theirs / "weights.pt")
    (theirs / "card.json").write_text(json.dumps({"trained_on": [seen], "chosen_on": [{**seen, "fingerprint": "g"}]}))
    work = Workplace(tmp_path)
    given = encoder_settings(VIT)
    card = enter_encoder("vit", given, work.model_folder("retriever", "vit"), init_from=str(theirs))
    assert card.summary == f"frozen {VIT} (m99, trained on 7 photos of validation)"
    assert work.model_card("retriever", "vit").saw("f") == "trained on"
    assert work.model_card("retriever", "vit").saw("g") == "chosen on"
    published = enter_encoder("other", given, tmp_path / "other", init_from="none")
    assert published.trained_on == published.chosen_on == ()
