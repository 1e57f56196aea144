from pathlib import Path

import pytest

from harness.retrieval.recipes import MODELS_TOML, find_recipe, load_recipes, recipes_of, resolve
from harness.retrieval.team_recipes import check_name, read_toml
from harness.types import InputError

TABLE_3 = {
    "m0": ("used DeepFashion2 train set only to train", 0.868),
    "m1": ("+Street2Shop", 0.873),
    "m2": ("+DARN+MVC", 0.873),
    "m3": ("+Street2Shop+DARN", 0.878),
    "m4": ("+Street2Shop+DARN+MVC", 0.879),
    "m5": ("+Street2Shop+DARN+MVC+MPV", 0.877),
    "m6": ("+Street2Shop+DARN+MVC+MPV+Zalando", 0.878),
    "m7": ("used DeepFashion2 train and valid set to train", None),
    "m8": ("used hparams by automl for msloss on m0", 0.871),
    "m9": ("changed backbone to SENext101 on m8", 0.858),
    "m10": ("increased resol. to 224x384 on m0", 0.870),
    "m11": ("used GeM+MAC descriptors on m4", 0.870),
    "m12": ("changed lr from 0.2 to 0.17 on m11", 0.877),
    "m13": ("changed lr from 0.2 to 0.17 on m4", 0.878),
    "m14": ("used hparams by automl for msloss on m13", 0.881),
    "m15": ("changed lr from 0.2 to 0.17 on m6", 0.882),
    "m16": ("used hparams by automl for msloss on m15", 0.880),
    "m17": ("used GeM+SPoC descriptors on m4", 0.870),
}


def test_words_and_figures_are_those_of_table_3():
    recipes = load_recipes()
    assert {name: (one.description, one.published_acc10) for name, one in recipes.items()} == TABLE_3
    assert list(recipes) == list(TABLE_3)


@pytest.mark.parametrize("name", [name for name, (words, _) in TABLE_3.items() if " on m" in words])
def test_base_and_change_are_those_that_the_words_say(name):
    words = TABLE_3[name][0]
    recipe, base = find_recipe(name), find_recipe(words.rsplit(" on ", 1)[1])
    assert recipe.base == base.name
    assert recipe.trained_on == base.trained_on
    changed = {key for key, value in recipe.full.model_dump().items() if value != getattr(base.full, key)}
    changed |= {"losses"} if recipe.full.losses != base.full.losses else set()
    different = {key for key in changed if getattr(recipe.full, key) != getattr(base.full, key)}
    expected = {"hparams": "losses", "backbone": "backbone", "resol.": "input_wh", "descriptors": "descriptors"}
    told = {field for word, field in expected.items() if word in words} or {"learning_rate"}
    assert different == told


def test_plus_signs_are_the_sources():
    for recipe in load_recipes().values():
        if recipe.description.startswith("+"):
            assert recipe.trained_on == ("DeepFashion2/train", *recipe.description[1:].split("+"))
    assert find_recipe("m7").trained_on == ("DeepFashion2/train", "DeepFashion2/validation")
    assert find_recipe("m16").trained_on == find_recipe("m6").trained_on


def test_m0_at_full_scale_is_table_4():
    m0 = resolve("m0", "full")
    assert (m0.backbone, m0.descriptors, m0.input_wh) == ("resnet152d", ("GeM",), (224, 224))
    assert (m0.output_dim, m0.epochs, m0.num_steps, m0.optimizer, m0.learning_rate) == (1024, 200, None, "SGD", 0.2)
    losses = m0.losses
    assert all(one.weight > 0 for one in (losses.softmax, losses.centre, losses.triplet, losses.multi_similarity))


def test_differences_reach_the_resolved_settings():
    assert resolve("m9", "full").backbone == "seresnext101_32x4d"
    assert resolve("m10", "full").input_wh == (224, 384)
    assert resolve("m12", "full").learning_rate == 0.17
    assert resolve("m12", "full").descriptors == ("GeM", "MAC")
    assert resolve("m17", "full").descriptors == ("GeM", "SPoC")
    assert resolve("m16", "full").losses == resolve("m8", "full").losses != resolve("m0", "full").losses


def test_tiny_scale_mirrors_what_differs():
    m0 = resolve("m0", "tiny")
    assert resolve("m9", "tiny").backbone != m0.backbone
    assert resolve("m12", "tiny").learning_rate / m0.learning_rate == pytest.approx(0.85)
    width, height = resolve("m10", "tiny").input_wh
    assert width == m0.input_wh[0]
    assert height / width == pytest.approx(384 / 224, abs=0.05)
    for name in TABLE_3:
        full, tiny = resolve(name, "full"), resolve(name, "tiny")
        assert full.descriptors == tiny.descriptors
        assert full.losses.multi_similarity.alpha == tiny.losses.multi_similarity.alpha


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(InputError, match=r"'m18'.*m0, m1.*m17"):
        resolve("m18", "tiny")
    with pytest.raises(InputError, match=r"'huge'.*full, tiny"):
        resolve("m0", "huge")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learning_rate = 0.17", "learning_rate = 0.17\nlearning_rat = 1", "models.m12: learning_rat"),
        ("learning_rate = 0.17", "learning_rate = -0.17", "models.m12: learning_rate: Input should be greater"),
        ("learning_rate = 0.17", "learning_rate = inf", "models.m12: learning_rate: Input should be a finite number"),
        ('base = "m11"', 'base = ["m11"]', "models.m12: base: expected the name of a model or table4"),
        ('base = "m11"', 'base = "m11"\nlosses = []', "losses: expected one or more, each once, got []"),
        ('base = "m11"', 'base = "m12"', "circle: m12"),
        ('base = "m11"', 'base = "m99"', "'m99' is not a model"),
        ('base = "m11"\n', "", "base is missing in 'm12'"),
        ('backbone = "SENext101"', 'backbone = "VGG"', "'VGG': there are ResNet152-D, SENext101, and timm's names"),
        ('plus = ["Street2Shop"]', 'plus = ["Street"]', "models.m1: source 'Street': there are DeepFashion2/train, "),
        ("[automl_ms_loss]", "[automl]", "automl_ms_loss: Field required"),
        ("zoom = [0.75, 1.1]", "zoom = [1.75, 1.1]", "least, largest"),
        ("\n[table4]\n", "\n[table4\n", "cannot be read as TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, old, new, message):
    text = MODELS_TOML.read_text()
    assert old in text
    path = tmp_path / "models.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as refusal:
        recipes_of(read_toml(path), path)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        load_recipes(tmp_path / "models.toml")


def test_reading_recipes_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys, harness.retrieval.recipes as r; r.load_recipes(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def team_file(folder: Path, text: str) -> Path:
    path = folder / "ours.toml"
    path.write_text(text)
    return path


def test_a_model_of_a_teams_takes_four_lines(tmp_path: Path):
    path = team_file(
        tmp_path, '[models.m18]\nbase = "m4"\nbackbone = "convnext_base"\ndescription = "m4 with a ConvNeXt"\n'
    )
    recipes = load_recipes(path)
    assert list(recipes) == [*TABLE_3, "m18"]
    m18, m4 = recipes["m18"], recipes["m4"]
    assert (m18.description, m18.base, m18.published_acc10) == ("m4 with a ConvNeXt", "m4", None)
    assert m18.trained_on == m4.trained_on
    for scale in ("full", "tiny"):
        theirs, ours = m4.at(scale).model_dump(), m18.at(scale).model_dump()
        assert {key for key in ours if ours[key] != theirs[key]} <= {"backbone", "backbone_options"}
        assert m18.at(scale).backbone == "convnext_base"
    assert m18.tiny.num_steps == 380
    assert m18.tiny.backbone_options == {}
    assert {name: recipe for name, recipe in recipes.items() if name != "m18"} == load_recipes()


def test_what_a_team_may_change(tmp_path: Path):
    path = team_file(
        tmp_path,
        """
        sources = ["OurShop"]

        [models.ours]
        base = "m14"
        plus = ["OurShop"]
        backbone = "swin_tiny_patch4_window7_224"
        remove_last_stride = false
        descriptors = ["SPoC", "MAC", "GeM"]
        ms_loss = { alpha = 4.0 }
        full = { margin = 0.1, losses = { triplet = { weight = 0.0 } } }

        [models.ours2]
        base = "ours"
        ms_loss = "automl"
        full.identities_per_batch = 64
        tiny.num_steps = 12
        """,
    )
    recipes = load_recipes(path)
    ours, ours2, m14 = recipes["ours"], recipes["ours2"], recipes["m14"]
    assert ours.trained_on == (*m14.trained_on, "OurShop")
    assert not ours.full.remove_last_stride
    assert not ours.tiny.remove_last_stride
    assert ours.full.descriptors == ("SPoC", "MAC", "GeM")
    shape = ours.full.losses.multi_similarity
    default = recipes["m0"].full.losses.multi_similarity
    assert (shape.alpha, shape.beta, shape.base, shape.epsilon) == (4.0, default.beta, default.base, default.epsilon)
    assert (ours.full.margin, ours.tiny.margin) == (0.1, m14.tiny.margin)
    assert ours.full.losses.triplet.weight == 0.0
    assert ours.full.losses.triplet.margin == m14.full.losses.triplet.margin
    assert ours.tiny.losses.triplet == m14.tiny.losses.triplet
    assert ours2.full.losses.multi_similarity == m14.full.losses.multi_similarity
    assert (ours2.full.identities_per_batch, ours2.full.margin) == (64, 0.1)
    assert ours2.tiny.num_steps == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[models.m4]\nbase = "m0"', "models.m4: model name 'm4': expected"),
        ('[models.m04]\nbase = "m0"', "models.m04: model name 'm04': expected"),
        ('[models.M18]\nbase = "m0"', "models.M18: model name"),
        ('[models."my-model"]\nbase = "m0"', "models.my-model: model name 'my-model': expected a letter"),
        ('[models.histogram]\nbase = "m0"', "models.histogram: model name"),
        ('[models.Ours]\nbase = "m0"\n[models.ours]\nbase = "m0"', "models.ours: there is Ours too"),
        ('[models.m18]\nbase = "m40"', "models.m18: base 'm40' is not a model; there are table4, m0"),
        (
            '[models.m18]\nbase = "m4"\nbackbon = "resnet18"',
            "models.m18: backbon: Extra inputs are not permitted; there",
        ),
        ('[models.m18]\nbase = "m4"\nbackbone = "convnext_bas"', "models.m18: backbone 'convnext_bas': timm"),
        (
            '[models.m18]\nbase = "m4"\nbackbone = "ConvNeXt"',
            "'ConvNeXt': there are ResNet152-D, SENext101, and timm's",
        ),
        (
            '[models.m18]\nbase = "m4"\nms_loss = { alfa = 1 }',
            "models.m18: ms_loss.alfa: Extra inputs are not permitted; ",
        ),
        ('[models.m18]\nbase = "m4"\nms_loss = "mine"', "models.m18: ms_loss: Input should be 'default' or 'automl'"),
        (
            '[models.m18]\nbase = "m4"\nfull = { margn = 1 }',
            "models.m18: full.margn: Extra inputs are not permitted; the",
        ),
        ('[models.m18]\nbase = "m4"\ndescriptors = ["GeM", "GeM"]', "descriptors: expected one or more, each once"),
        ('[models.m18]\nbase = "m4"\ntiny.margin = -1', "models.m18: tiny.margin: Input should be greater"),
        ('[models.m18]\nbase = "m4"\npublished_acc10 = 0.9', "models.m18.published_acc10: only the paper's models"),
        ('[models.m18]\nbase = "m4"\nplus = ["OurShop"]', "models.m18: source 'OurShop': there are DeepFashion2/train"),
        ('[models.m18]\nbase = "m4"\nplus = ["DARN"]', "models.m18: source 'DARN' comes twice"),
        ('[model.m18]\nbase = "m4"', "unknown table 'model'; there are models, sources"),
        ("models = 3", "models: expected tables"),
        ('sources = "OurShop"', "sources: expected a list"),
        ("[models", "cannot be read as TOML"),
    ],
)
def test_a_wrong_file_of_a_teams_is_refused_with_its_place(tmp_path: Path, text, message):
    path = team_file(tmp_path, text)
    with pytest.raises(InputError) as refusal:
        load_recipes(path)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("name", ["m18", "m100", "dino", "Ours_2.1", "clip.b32"])
def test_names_that_a_model_can_have(name):
    check_name(name)


@pytest.mark.parametrize(
    "name", ["m0", "m17", "M3", "m018", "WBF_6", "gt", "with", "histogram", "a b", "../x", "", "-x"]
)
def test_names_that_a_model_cannot_have(name):
    with pytest.raises(InputError, match="expected a letter"):
        check_name(name)
