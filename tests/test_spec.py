"""The ensemble language: the paper's notation in, one canonical form out, errors that mark the place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.spec import PAPER_DETECTORS, PAPER_MODELS, BoxSource, Ensemble, Member, SpecError, parse
from harness.steps import STEPS, Step, misplaced


def names(text: str) -> list[str]:
    return [member.model for member in parse(text).members]


@pytest.mark.parametrize(
    "written, canonical",
    [
        ("m4", "m4 + WBF_5"),
        ("m1-16", "m1-16 + WBF_5"),
        ("m1-m16 with WBF_5", "m1-16 + WBF_5"),
        ("m0-13 (w/o m6-9)", "m0-5,m10-13 + WBF_5"),
        ("m0-16 (w/o m7)", "m0-6,m8-16 + WBF_5"),
        ("m0-3 (w/o m1,m2)", "m0,m3 + WBF_5"),
        ("m1,m3,m5-7", "m1,m3,m5-7 + WBF_5"),
        ("m7, m5-6,m3,m1", "m1,m3,m5-7 + WBF_5"),
        ("m4 + WBF_5 (126k)", "m4 + WBF_5@126k"),
        ("m4 + WBF_5@126000", "m4 + WBF_5@126k"),
        ("m4 with wbf_3@1.5k", "m4 + WBF_3@1500"),
        ("m4 with WBF_5@1M", "m4 + WBF_5@1000k"),
        ("m4+ATSS", "m4 + ATSS"),
        ("m4 with RetinaNet-X101-FPN", "m4 + RetinaNet-X101-FPN"),
        ("m4 with GT", "m4 + GT"),
        ("m4*0.5,m1", "m1,m4*0.5 + WBF_5"),
        ("m1-3*2", "m1-3*2 + WBF_5"),
        ("m4 + WBF_5@126k | rerank(k1=20,k2=6,lambda=0.3)", "m4 + WBF_5@126k | rerank(k1=20,k2=6,lambda=0.3)"),
        ("m4 | rerank", "m4 + WBF_5 | rerank(k1=20,k2=6,lambda=0.3)"),
        ("m4 | rerank(30, lambda=.5)", "m4 + WBF_5 | rerank(k1=30,k2=6,lambda=0.5)"),
        ("m4|pca(512)|whiten|qe(5)|dba(k=5)", "m4 + WBF_5 | pca(512) | whiten | qe(5) | dba(5)"),
        ("m4|dba(5, weights=plain)|qe(k=5,weights=rank)", "m4 + WBF_5 | dba(5) | qe(5,weights=rank)"),
        (
            "m4|qe(5,alpha=3.0)|rerank|same_category",
            "m4 + WBF_5 | qe(5,alpha=3) | rerank(k1=20,k2=6,lambda=0.3) | same_category",
        ),
        ("m4 | pca(512,fit=train) | whiten(fit=gallery)", "m4 + WBF_5 | pca(512,fit=train) | whiten"),
        ("m4 | whiten(fit=train,dimensions=64)", "m4 + WBF_5 | whiten(64,fit=train)"),
        ("m4 | whiten(fit=split,shrinkage=.1)", "m4 + WBF_5 | whiten(fit=split)"),
        ("m4 | whiten(shrinkage=0)", "m4 + WBF_5 | whiten(shrinkage=0)"),
    ],
)
def test_every_way_of_writing_has_one_canonical_form(written: str, canonical: str) -> None:
    assert str(parse(written)) == canonical
    assert parse(canonical) == parse(written)


def test_table_6_rows_have_the_models_the_paper_counts() -> None:
    assert names("m1-16") == [f"m{n}" for n in range(1, 17)]
    assert names("m0-13 (w/o m6-9)") == [f"m{n}" for n in (0, 1, 2, 3, 4, 5, 10, 11, 12, 13)]


def test_parts_of_a_spec() -> None:
    ensemble = parse("m4*0.5 + WBF_3@126k | qe(5)")
    assert ensemble.members == (Member("m4", 0.5),)
    assert ensemble.boxes == BoxSource("WBF_3", 126_000)
    assert ensemble.boxes.fused == PAPER_DETECTORS[:3]
    assert parse("m4 + ATSS").boxes.fused is None
    assert parse("m4 + ATSS").boxes.detectors == ("ATSS",)
    assert parse("m4 + GT").boxes.detectors == ()
    assert ensemble.steps == (Step("qe", (("k", 5), ("weights", "plain"))),)
    assert ensemble.steps[0]["k"] == 5
    assert ensemble.steps[0].get("alpha") is None


@pytest.mark.parametrize(
    "text, column, says",
    [
        ("m99", 1, "unknown model 'm99'; there are m0, m1"),
        ("m1,m99", 4, "unknown model 'm99'"),
        ("m1-18", 4, "unknown model 'm18'"),
        ("m1,m1", 4, "m1 is named twice"),
        ("m1-5,m3", 6, "m3 is named twice"),
        ("m5-1", 4, "runs backwards"),
        ("m1 (w/o m2)", 9, "m2 is left out, but"),
        ("m1 (w/o m1)", 12, "no model is left"),
        ("", 1, "expected a model"),
        ("m4 with", 8, "expected boxes; there are WBF_1"),
        ("m4 with WBF_6", 9, "unknown boxes 'WBF_6'; there are WBF_1"),
        ("m4 with YOLO", 9, "unknown boxes 'YOLO'"),
        ("m4 with GT@5", 9, "no budget"),
        ("m4 with WBF_5@0", 15, "whole number of boxes"),
        ("m4 with WBF_5@x", 15, "expected a number"),
        ("m4 with WBF_5@1e999", 15, "too large"),
        ("m4*0", 4, "above 0"),
        ("m4 | fly", 6, "unknown step 'fly'; there are rerank"),
        ("m4 | rerank(k3=1)", 13, "no argument 'k3'; it takes k1, k2, lambda"),
        ("m4 | rerank(k1=1,k1=2)", 18, "k1 is given twice"),
        ("m4 | rerank(lambda=2)", 20, "lambda is from 0 to 1"),
        ("m4 | qe", 6, "needs its k"),
        ("m4 | qe(2.5)", 9, "whole number"),
        ("m4 | same_category(3)", 20, "takes 0 arguments"),
        ("m4 | whiten(512,fit=test)", 21, "fit is one of gallery, split, train"),
        ("m4 | whiten(0)", 13, "dimensions is from 1 to 1000000"),
        ("m4 | qe(5,alpha=3,weights=rank)", 6, "qe takes weights or alpha, not both"),
        ("m4 | rerank | qe(5)", 6, "only same_category may follow it, not qe"),
        ("m4 | rerank | same_category | rerank", 6, "may follow it, not rerank"),
        ("m4 | dba(5) | pca(8,fit=train)", 15, "fit=train knows nothing of dba; name pca before it"),
        ("m4 | qe(5) | same_category | dba(3)", 14, "so it stands last"),
        ("m4 m5", 4, "expected 'with BOXES'"),
        ("m4 with WBF_5 please", 15, "expected 'with BOXES'"),
    ],
)
def test_errors_mark_the_place_and_list_what_is_possible(text: str, column: int, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith(f"ensemble spec, column {column}: ")
    assert says in message
    assert message.splitlines()[2].index("^") == column + 1


def test_models_made_elsewhere_are_known_when_named() -> None:
    assert str(parse("m17-18,clip", models=(*PAPER_MODELS, "m18", "clip"))) == "m17,m18,clip + WBF_5"


def test_any_detectors_can_be_fused() -> None:
    known = (*PAPER_DETECTORS, "Mine", "his-v2.1")
    named = parse("m4 + wbf( Mine,ATSS , his-v2.1)@2k", detectors=known)
    assert str(named) == "m4 + WBF(ATSS,Mine,his-v2.1)@2k"
    assert named.boxes.fused == named.boxes.detectors == ("ATSS", "Mine", "his-v2.1")
    assert parse(str(named), detectors=known) == named
    assert parse("m4 + Mine", detectors=known).boxes.detectors == ("Mine",)
    # The paper's first n, in whatever order they are written, are WBF_n; others of the paper are not.
    assert str(parse("m4 + WBF(CenterNet,ATSS,CascadeMaskRCNN)")) == "m4 + WBF_3"
    assert str(parse("m4 + WBF(CenterNet,ATSS)")) == "m4 + WBF(ATSS,CenterNet)"


def test_a_budget_for_each_category() -> None:
    assert parse("m4 + WBF_5 (126k/category)").boxes == BoxSource("WBF_5", 126_000, per_category=True)
    assert str(parse("m4 + ATSS@5/category | qe(5)")) == "m4 + ATSS@5/category | qe(5)"


@pytest.mark.parametrize(
    "text, says",
    [
        ("m4 + WBF(ATSS,Mine)", "unknown detector 'Mine'; there are ATSS"),
        ("m4 + WBF(ATSS,ATSS)", "ATSS is named twice"),
        ("m4 + WBF()", "expected detector"),
        ("m4 + WBF(ATSS", "expected ')'"),
        ("m4 + WBF(WBF_2)", "unknown detector 'WBF_2'"),
        ("m4 + WBF_9", "WBF(DETECTOR,DETECTOR,…)"),
        ("m4 + WBF_5@126k/class", "expected 'category'"),
    ],
)
def test_fusions_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert says in str(caught.value)


weights = st.one_of(st.just(1.0), st.floats(1e-3, 1e3))


@st.composite
def steps(draw):
    """Any step, with and without what it may have."""
    name = draw(st.sampled_from(list(STEPS)))
    given = []
    for argument in STEPS[name]:
        if not argument.required and draw(st.booleans()):
            if argument.default is not None:
                given.append((argument.name, argument.default))
        elif argument.kind is str:
            given.append((argument.name, draw(st.sampled_from(argument.words))))
        elif argument.kind is int:
            given.append((argument.name, draw(st.integers(int(argument.low), int(argument.high)))))
        else:
            given.append((argument.name, draw(st.floats(argument.low, argument.high))))
    return Step(name, tuple(given))


sources = st.one_of(
    st.builds(
        BoxSource,
        st.sampled_from(("WBF_1", "WBF_5", "WBF(CascadeMaskRCNN,CenterNet)", *PAPER_DETECTORS)),
        st.integers(1, 10**7),
        st.booleans(),
    ),
    st.builds(BoxSource, st.sampled_from(("WBF_2", "WBF(ATSS,CenterNet)", "ATSS"))),
    st.just(BoxSource("GT")),
)


@given(
    members=st.dictionaries(st.sampled_from(PAPER_MODELS), weights, min_size=1),
    boxes=sources,
    steps=st.lists(steps(), max_size=3).filter(lambda steps: misplaced(steps) is None),
)
def test_parse_inverts_str(members: dict[str, float], boxes: BoxSource, steps: list[Step]) -> None:
    ordered = sorted(members, key=PAPER_MODELS.index)
    ensemble = Ensemble(tuple(Member(name, members[name]) for name in ordered), boxes, tuple(steps))
    assert parse(str(ensemble)) == ensemble
    assert hash(parse(str(ensemble))) == hash(ensemble)


@given(st.text(alphabet="m0123456789-,()*+|@ wWBFith/okGTrean=.", max_size=40))
def test_any_text_parses_or_is_a_spec_error(text: str) -> None:
    try:
        ensemble = parse(text)
    except SpecError:
        return
    assert parse(str(ensemble)) == ensemble


def test_no_wbf_n_takes_a_detector_that_the_paper_has_not() -> None:
    known = (*PAPER_DETECTORS, "Mine")
    assert parse("m4 + mine@126k", detectors=known).boxes == BoxSource("Mine", 126_000)
    with pytest.raises(SpecError, match=r"unknown boxes 'WBF_6'; there are WBF_1, .*RetinaNet-X101-FPN, Mine, GT"):
        parse("m4 + WBF_6", detectors=known)
    with pytest.raises(SpecError, match="unknown boxes 'Mine'"):
        parse("m4 + Mine")
