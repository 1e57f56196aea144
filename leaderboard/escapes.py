"""Texts that come from users, shown as they are in a spreadsheet, in Markdown and in TeX."""

from __future__ import annotations

import re
from collections.abc import Sequence


def spreadsheet_text(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one that begins like one gets an apostrophe before it.

    Args:
        text: any.
    """
    plain = _CONTROL.sub(" ", text)
    return f"'{plain}" if _FORMULA.match(plain) else plain


def markdown_text(text: str) -> str:
    """A text that Markdown shows as it is: no mark-up, no HTML, no end of a table's cell.

    Args:
        text: any.
    """
    plain = _CONTROL.sub(" ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\g<0>", plain)


def markdown_line(cells: Sequence[str]) -> str:
    """A line of a Markdown table.

    Args:
        cells: texts, see `markdown_text`.
    """
    return "| " + " | ".join(map(markdown_text, cells)) + " |"


def latex_text(text: str) -> str:
    """A text that TeX sets as it is.

    Args:
        text: any.
    """
    plain = _HYPHENS.sub("-\0", _CONTROL.sub(" ", text))
    return "".join(_LATEX.get(one, one) for one in plain)


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")

_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")

_HYPHENS = re.compile("-(?=-)")
"""Two of them would become a dash."""

_LATEX = {
    "\\": "\\textbackslash{}",
    "{": "\\{",
    "}": "\\}",
    "$": "\\$",
    "&": "\\&",
    "#": "\\#",
    "%": "\\%",
    "_": "\\_",
    "^": "\\textasciicircum{}",
    "~": "\\textasciitilde{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "\\textquotedbl{}",
    "`": "\\textasciigrave{}",
    "'": "\\textquotesingle{}",
    "\0": "{}",
    "–": "--",
    "…": "\\dots{}",
    "×": "$\\times$",
    "[": "{[}",  # after the end of a line an option would begin
    "]": "{]}",
    "*": "{*}",
}
