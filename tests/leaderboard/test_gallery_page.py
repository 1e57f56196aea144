"""The gallery's page as text, without a browser."""

import base64
import json
import re

from leaderboard.pages.gallery_page import gallery_page, write_gallery
from leaderboard.pages.links import row_path
from tests.leaderboard.boards import EVIL
from tests.leaderboard.galleries import shown
from tests.leaderboard.samples import sample


def inside(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_every_picture_stands_in_the_page_once():
    result = shown()
    html = gallery_page(result)
    data = inside(html)
    assert len(data["pictures"]) == len(result.pictures)
    for (encoded, *sizes, photo), picture in zip(data["pictures"], result.pictures, strict=True):
        assert (None if encoded is None else base64.b64decode(encoded)) == picture.data
        assert (tuple(sizes[:2]), tuple(sizes[2:]), photo) == (picture.size_wh, picture.of_wh, picture.photo)
        if encoded:
            assert html.count(encoded) == 1
    assert [query["number"] for query in data["queries"]] == [query.number for query in result.queries]


def test_how_many_of_how_many_are_shown_and_what_could_not_be_told():
    html = gallery_page(shown())
    counts = dict(re.findall(r'<b>([^<]+)</b> <span class="count">([^<]+)</span>', html))
    assert counts["hit"] == "7 of 107"
    assert counts["no detection"] == "7"
    assert counts["displaced"] == "could not be told"
    assert "39</b> of 139 queries shown" in html
    assert "RENDERED" in html
    assert "2 photos could not be read: 000010.jpg, 000021.jpg" in html


def test_only_a_page_of_the_site_links_to_the_site(tmp_path):
    row = sample("m4")
    assert f'href="../{row_path(row)}"' in gallery_page(shown(row=row), in_site=True)
    assert 'href="../' not in gallery_page(shown(row=row))
    assert 'href="../rows' not in gallery_page(shown(), in_site=True)
    page = write_gallery(tmp_path / "gallery" / "page.html", shown(3))
    assert page.read_text() == gallery_page(shown(3))
    assert [file.name for file in page.parent.iterdir()] == ["page.html"]


def test_texts_are_text():
    html = gallery_page(shown(9, text=EVIL, photo=EVIL))
    assert "<img" not in html
    assert html.count("<script") == html.count("</script") == 2
    assert inside(html)["queries"][0]["category"] == EVIL
    assert "Does not count: &lt;script" in html
    assert "class hedging" in html
