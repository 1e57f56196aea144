"""The standings for other programs and for papers: CSV, Markdown, LaTeX, JSON.

Rendered data is named in every line and over every figure; scores that were told elsewhere stand in a table of their
own; rows that do not count come last in theirs, without a rank.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from harness.types import RANKS
from leaderboard.entered import EnteredScore
from leaderboard.escapes import latex_text, markdown_line, markdown_text, spreadsheet_text
from leaderboard.standings import Entry, Section

FORMATS = ("csv", "markdown", "latex", "json")

_TIED = "cannot be told from"


def as_csv(sections: Sequence[Section]) -> str:
    """All measured results in one table, a line each, with what was measured in every line.

    Args:
        sections: as `leaderboard.standings.sections` makes them.

    Returns:
        CSV with a heading and ``\\n`` after each line. Texts that a spreadsheet would take for a formula begin with an
        apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    of_section = ("pictures", "split", "data", "protocol", "boxes", "queries")
    of_entry = ("rank", "name", "spec", "row", *(f"Acc@{k}" for k in RANKS), "Acc@10 low", "Acc@10 high")
    writer.writerow([*of_section, *of_entry, _TIED, "seconds", "hardware", "remarks"])
    for section in sections:
        shared = section.row
        pictures = "RENDERED" if shared.rendered else "photographs"
        told = [pictures, shared.split, shared.fingerprint, shared.score.protocol, shared.boxes]
        for entry in (*section.ranked, *section.apart):
            row = entry.row
            writer.writerow(
                [
                    *map(spreadsheet_text, told),
                    row.score.num_queries,
                    "" if entry.rank is None else entry.rank,
                    *map(spreadsheet_text, (row.name, row.spec, row.id)),
                    *(repr(row.score.acc[k]) for k in RANKS),
                    repr(entry.low),
                    repr(entry.high),
                    spreadsheet_text(entry.tied_words),
                    "" if entry.total_seconds is None else repr(entry.total_seconds),
                    spreadsheet_text(entry.hardware_label),
                    spreadsheet_text(_remarks(entry)),
                ]
            )
    return out.getvalue()


def as_markdown(sections: Sequence[Section], entered: Sequence[EnteredScore] = ()) -> str:
    """One Markdown table a section, and one of scores that were told elsewhere.

    Args:
        sections: as `leaderboard.standings.sections` makes them.
        entered: scores that were told elsewhere.
    """
    parts: list[str] = []
    for section in sections:
        headings, lines = _cells(section)
        kinds = ["---" if heading in _WORDS else "---:" for heading in headings]
        table = [markdown_line(headings), "| " + " | ".join(kinds) + " |", *map(markdown_line, lines)]
        parts.append("\n".join([f"### {markdown_text(_title(section))}", "", *table]))
    if entered:
        headings, lines = _entered_cells(entered)
        kinds = ["---:" if heading.startswith("Acc@") else "---" for heading in headings]
        table = [markdown_line(headings), "| " + " | ".join(kinds) + " |", *map(markdown_line, lines)]
        parts.append("\n".join([f"### {_ENTERED_TITLE}", "", *table]))
    return "\n\n".join(parts or ["No rows yet."]) + "\n"


def as_latex(sections: Sequence[Section], entered: Sequence[EnteredScore] = ()) -> str:
    """One table of the package booktabs a section, and one of scores that were told elsewhere.

    Args:
        sections: as `leaderboard.standings.sections` makes them.
        entered: scores that were told elsewhere.

    Returns:
        UTF-8 text to be included in a document; every character that means something to TeX is escaped.
    """
    parts = ["% \\usepackage{booktabs}"]
    for section in sections:
        headings, lines = _cells(section)
        columns = "".join("l" if heading in _WORDS else "r" for heading in headings)
        parts.append(_latex_table(_title(section), headings, columns, lines, len(section.ranked)))
    if entered:
        headings, lines = _entered_cells(entered)
        columns = "".join("r" if heading.startswith("Acc@") else "l" for heading in headings)
        parts.append(_latex_table(_ENTERED_TITLE, headings, columns, lines, len(lines)))
    return "\n\n".join(parts) + "\n"


def as_json(sections: Sequence[Section], entered: Sequence[EnteredScore] = ()) -> dict[str, Any]:
    """JSON values: ``sections``, each with ``ranked`` and ``apart``, and ``entered``.

    Args:
        sections: as `leaderboard.standings.sections` makes them.
        entered: scores that were told elsewhere.
    """
    return {
        "sections": [
            {
                "rendered": section.row.rendered,
                "split": section.row.split,
                "data": section.row.fingerprint,
                "protocol": section.row.score.protocol,
                "boxes": section.row.boxes,
                "num_queries": section.row.score.num_queries,
                "ranked": [_entry_json(entry, section) for entry in section.ranked],
                "apart": [_entry_json(entry, section) for entry in section.apart],
            }
            for section in sections
        ],
        "entered": [
            {
                "name": score.name,
                "spec": score.spec,
                "split": score.split,
                "acc": {str(k): value for k, value in sorted(score.acc.items())},
                "source": score.source,
                "submission_sha256": score.submission_sha256,
                "rendered": score.rendered,
                "entered": score.created.isoformat(),
            }
            for score in entered
        ],
    }


_ENTERED_TITLE = "Told elsewhere, not measured here"

_WORDS = {"name", "spec", "row", _TIED, "hardware", "remarks"}


def _remarks(entry: Entry) -> str:
    told = ["RENDERED"] if entry.row.rendered else []
    told += entry.reasons
    told += [f"also known as {', '.join(entry.also_known_as)}"] if entry.also_known_as else []
    told += [f"{entry.num_runs} runs"] if entry.num_runs > 1 else []
    told += [entry.variant] if entry.variant else []
    return "; ".join(told)


def _title(section: Section) -> str:
    shared = section.row
    pictures = "RENDERED data, not DeepFashion2" if shared.rendered else "Photographs"
    return (
        f"{pictures}: {shared.split} {shared.fingerprint[:8]}, {shared.score.protocol} protocol, {shared.boxes} boxes, "
        f"{shared.score.num_queries:,} queries"
    )


def _cells(section: Section) -> tuple[list[str], list[list[str]]]:
    mark = "RENDERED " if section.row.rendered else ""
    headings = ["#", "name", "spec", "row", *(f"{mark}Acc@{k}" for k in RANKS), f"{mark}Acc@10, 95 % interval"]
    headings += [_TIED, "seconds", "hardware", "remarks"]
    lines = [
        [
            "–" if entry.rank is None else str(entry.rank),
            entry.row.name,
            entry.row.spec,
            entry.row.id[:12],
            *(f"{entry.row.score.acc[k]:.4f}" for k in RANKS),
            f"{entry.low:.4f}–{entry.high:.4f}",
            entry.tied_words,
            "" if entry.total_seconds is None else f"{entry.total_seconds:.1f}",
            entry.hardware_label,
            _remarks(entry),
        ]
        for entry in (*section.ranked, *section.apart)
    ]
    return headings, lines


def _entered_cells(entered: Sequence[EnteredScore]) -> tuple[list[str], list[list[str]]]:
    told = [k for k in RANKS if any(k in score.acc for score in entered)]
    headings = ["name", "spec", "split", *(f"Acc@{k}" for k in told), "told by", "entered", "pictures"]
    lines = [
        [
            score.name,
            score.spec,
            score.split,
            *(f"{score.acc[k]:.6f}" if k in score.acc else "" for k in told),
            score.source,
            f"{score.created:%Y-%m-%d}",
            "RENDERED" if score.rendered else "photographs",
        ]
        for score in entered
    ]
    return headings, lines


def _latex_table(
    title: str, headings: Sequence[str], columns: str, lines: Sequence[Sequence[str]], num_ranked: int
) -> str:
    def rows() -> Iterator[str]:
        for number, line in enumerate(lines):
            if number == num_ranked and number:
                yield "\\midrule"
            yield " & ".join(map(latex_text, line)) + " \\\\"

    return "\n".join(
        [
            "\\begin{table*}",
            "\\centering\\footnotesize",
            f"\\caption{{{latex_text(title)}}}",
            f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            "\\toprule",
            " & ".join(map(latex_text, headings)) + " \\\\",
            "\\midrule",
            *rows(),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table*}",
        ]
    )


def _entry_json(entry: Entry, section: Section) -> dict[str, Any]:
    row = entry.row
    tied = None if entry.tied_with is None else [section.ranked[place].row.id for place in entry.tied_with]
    return {
        "rank": entry.rank,
        "name": row.name,
        "spec": row.spec,
        "row": row.id,
        "rendered": row.rendered,
        "acc": {str(k): row.score.acc[k] for k in RANKS},
        "acc10_interval": [entry.low, entry.high],
        "tied_with": tied,
        "total_seconds": entry.total_seconds,
        "seconds_per_1000_queries": entry.seconds_per_1000,
        "hardware": entry.hardware_label,
        "also_known_as": list(entry.also_known_as),
        "runs": [run.id for run in entry.runs],
        "variant": entry.variant,
        "reasons": list(entry.reasons),
    }
