"""Tables as text: what is best, what is the paper's, and that it can be pasted."""

import csv
import io

import pytest

from rasr.evaluation import Column, Table, TableRow, to_csv, to_latex, to_markdown
from rasr.evaluation.tables import ranks

PSNR, LPIPS = Column("PSNR", 2), Column("LPIPS", 4, lower_better=True)


@pytest.fixture
def table():
    rows = [
        TableRow("A & B", [25.0, 0.3], [24.5, 0.31]),
        TableRow("C|D", [26.0, 0.2], []),
        TableRow("E", [25.001, None], [None, 0.1]),
    ]
    return Table("A title", [PSNR, LPIPS], rows, ["a note"])


def test_best_and_second_best_follow_the_direction_and_the_printed_digits(table):
    assert ranks(table) == [[2, 2], [1, 1], [2, 0]]  # 25.0 and 25.001 print alike


def test_a_single_figure_is_not_best():
    assert ranks(Table("", [PSNR], [TableRow("A", [1.0]), TableRow("B", [None])])) == [[0], [0]]


def test_markdown(table):
    assert to_markdown(table).splitlines() == [
        "**A title**",
        "",
        "| Method | PSNR ↑ | LPIPS ↓ |",
        "| --- | ---: | ---: |",
        "| A & B | <u>25.00</u> <sub>24.50</sub> | <u>0.3000</u> <sub>0.3100</sub> |",
        r"| C\|D | **26.00** | **0.2000** |",
        "| E | <u>25.00</u> | <sub>0.1000</sub> |",
        "",
        "Bold: best. Underlined: second best. Small: the paper's figures.",
        "",
        "- a note",
    ]


def test_latex(table):
    lines = to_latex(table).splitlines()
    assert lines[:4] == ["% A title", "% a note", r"\begin{tabular}{lcc}", r"\toprule"]
    assert (
        r"A \& B & \underline{25.00} \textcolor{gray}{24.50} & \underline{0.3000} \textcolor{gray}{0.3100} \\"
        in lines
    )
    assert r"C|D & \textbf{26.00} & \textbf{0.2000} \\" in lines
    assert lines[-1] == r"\end{tabular}"


def test_labels_of_any_folder_name_can_be_pasted():
    table = Table("t", [PSNR], [TableRow(r"a_b~{c}^\d", [1.0])])
    assert r"a\_b\textasciitilde{}\{c\}\textasciicircum{}\textbackslash{}d & 1.00 \\" in to_latex(table)


def test_several_data_sets_share_a_table():
    columns = [Column("PSNR", 2, group="X"), Column("SSIM", 4, group="X"), Column("PSNR", 2, group="Y")]
    table = Table("t", columns, [TableRow("A", [1.0, 2.0, None])])
    assert "| Method | X PSNR ↑ | X SSIM ↑ | Y PSNR ↑ |" in to_markdown(table)
    assert "| A | 1.00 | 2.0000 | - |" in to_markdown(table)
    assert r" & \multicolumn{2}{c}{X} & \multicolumn{1}{c}{Y} \\" in to_latex(table)


def test_csv_keeps_all_digits(table):
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    assert rows[0] == ["method", "PSNR", "LPIPS", "PSNR (paper)", "LPIPS (paper)"]
    assert rows[2:] == [["C|D", "26.0", "0.2", "", ""], ["E", "25.001", "", "", "0.1"]]
