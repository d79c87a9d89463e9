"""Tables of methods and metrics, ready to paste: Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Column:
    """One metric of one data set."""

    title: str
    digits: int
    lower_better: bool = False
    group: str = ""
    """The data set, where a table has several."""

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↓" if self.lower_better else "↑"


@dataclass
class TableRow:
    """One method; the lists have one entry per column, None where there is no figure."""

    label: str
    values: list[float | None]
    published: list[float | None] = field(default_factory=list)
    """The paper's figures; empty where there are none."""
    is_ranked: bool = True
    """False: it takes no part in best and second best, as a spread of figures."""


@dataclass
class Table:
    """Columns and rows, with what must be said of them."""

    title: str
    columns: list[Column]
    rows: list[TableRow]
    notes: list[str] = field(default_factory=list)
    """Protocol, versions, what is missing; plain text."""


def ranks(table: Table) -> list[list[int]]:
    """1 for the best and 2 for the second best of our figures in each column, else 0; equal ones share.

    What counts is the figure as it is printed. A column with a single figure has no best.
    """
    marks = [[0] * len(table.columns) for _ in table.rows]
    for index, column in enumerate(table.columns):
        sign = 1 if column.lower_better else -1
        shown = [
            sign * round(row.values[index], column.digits)
            if row.is_ranked and row.values[index] is not None
            else None
            for row in table.rows
        ]
        order = sorted({value for value in shown if value is not None})
        if sum(value is not None for value in shown) < 2:
            continue
        for row_marks, value in zip(marks, shown, strict=True):
            if value in order[:2]:
                row_marks[index] = 1 + order.index(value)
    return marks


def to_markdown(table: Table) -> str:
    """Best in bold, second best underlined, the paper's figures small behind ours."""
    header = ["Method", *(f"{_grouped(column)} {column.arrow}" for column in table.columns)]
    lines = [f"**{table.title}**", "", _bar(header), _bar(["---", *["---:"] * len(table.columns)])]
    styles = (str, "**{}**".format, "<u>{}</u>".format)
    lines += [_bar(cells) for cells in _cells(table, styles, "<sub>{}</sub>".format, _escape_markdown)]
    legend = []
    if any(any(marks) for marks in ranks(table)):
        legend.append("Bold: best. Underlined: second best.")
    if any(row.published for row in table.rows):
        legend.append("Small: the paper's figures.")
    after = ["", " ".join(legend)] if legend else []
    return "\n".join([*lines, *after, "", *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def to_latex(table: Table) -> str:
    """A tabular; it needs the packages booktabs and, for the paper's figures in grey, xcolor."""
    styles = (str, r"\textbf{{{}}}".format, r"\underline{{{}}}".format)
    grey = r"\textcolor{{gray}}{{{}}}".format
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    titles = [f"{_escape_latex(column.title)} {arrows[column.arrow]}" for column in table.columns]
    lines = [rf"% {table.title}", *(f"% {note}" for note in table.notes)]
    lines += [rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}", r"\toprule"]
    if any(column.group for column in table.columns):
        lines.append(_latex_line(["", *_spans(table.columns)]))
    lines += [_latex_line(["Method", *titles]), r"\midrule"]
    lines += [_latex_line(cells) for cells in _cells(table, styles, grey, _escape_latex)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def to_csv(table: Table) -> str:
    """Unrounded; two columns per metric where the table has the paper's figures."""
    has_published = any(row.published for row in table.rows)
    titles = [_grouped(column) for column in table.columns]
    header = ["method", *titles, *(f"{title} (paper)" for title in titles if has_published)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        published = (row.published or [None] * len(titles)) if has_published else []
        writer.writerow([row.label, *("" if v is None else v for v in [*row.values, *published])])
    return stream.getvalue()


def _cells(
    table: Table,
    styles: tuple[Callable[[str], str], ...],
    grey: Callable[[str], str],
    escape: Callable[[str], str],
) -> list[list[str]]:
    """The texts of every row; `styles` dress a plain, a best and a second-best figure."""
    rows = []
    for row, marks in zip(table.rows, ranks(table), strict=True):
        cells = [escape(row.label)]
        for index, (column, mark) in enumerate(zip(table.columns, marks, strict=True)):
            texts = []
            if row.values[index] is not None:
                texts.append(styles[mark](f"{row.values[index]:.{column.digits}f}"))
            if row.published and row.published[index] is not None:
                texts.append(grey(f"{row.published[index]:.{column.digits}f}"))
            cells.append(" ".join(texts) or "-")
        rows.append(cells)
    return rows


def _grouped(column: Column) -> str:
    return f"{column.group} {column.title}".strip()


def _bar(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spans(columns: Sequence[Column]) -> list[str]:
    """One multicolumn cell per run of equal groups."""
    runs: list[tuple[str, int]] = []
    for column in columns:
        if runs and runs[-1][0] == column.group:
            runs[-1] = (column.group, runs[-1][1] + 1)
        else:
            runs.append((column.group, 1))
    return [rf"\multicolumn{{{count}}}{{c}}{{{_escape_latex(group)}}}" for group, count in runs]


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escape_latex(text: str) -> str:
    signs = {sign: f"\\{sign}" for sign in "&%#_${}"}
    signs |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return text.translate(str.maketrans(signs))


def _escape_markdown(text: str) -> str:
    return text.replace("|", r"\|")
