"""Markdown and CSV: golden text, escapes, and cells that say what the numbers say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest

from suite.report.markdown import markdown, write_csv
from suite.report.tables import accuracy_table, difference_table, fairness_table, verdict_lines
from suite.statistics.frames import ABSENT, Number, percent

NAN = math.nan


def accuracies(undecided: float = 0.0, no_answer: float = 0.0) -> pd.DataFrame:
    columns = ["method", "task", "accuracy", "low", "high", "seeds", "undecided_share", "no_answer_share"]
    rows = [
        ("base", "add", 0.31, 0.28, 0.34, 1, undecided, no_answer),
        ("base", "mean", 0.305, 0.28, 0.33, 1, undecided, no_answer),
        ("fspo", "add", 0.4729, 0.441, 0.5023, 3, 0.0, 0.0),
        ("fspo", "mean", 0.46, 0.44, 0.48, 3, 0.0, 0.0),
    ]
    cut = {"truncated_share": [0.25, 0.125, 0.0, 0.0]}
    return pd.DataFrame(rows, columns=columns).assign(**cut)


def differences() -> pd.DataFrame:
    columns = [
        "method",
        "reference",
        "task",
        "difference",
        "low",
        "high",
        "minimum_detectable",
        "p_holm",
        "seeds",
        "verdict",
    ]
    rows = [
        ("fspo", "base", "add", 0.1629, 0.13, 0.2, 0.05, 0.0002, 3, "better, few seeds"),
        ("fspo", "base", "mean", 0.155, 0.125, 0.186, 0.043, 0.00041, 3, "better, few seeds"),
        ("grpo", "base", "add", -0.0004, -0.02, 0.02, 0.031, 0.9, 3, "under-powered, few seeds"),
        ("grpo", "base", "mean", -0.0004, -0.02, 0.02, 0.031, 0.9, 1, "under-powered, few seeds"),
        ("fspo", "grpo", "add", 0.1, NAN, NAN, NAN, NAN, 3, "no variation, few seeds"),
    ]
    return pd.DataFrame(rows, columns=columns)


def fairness() -> pd.DataFrame:
    numbers = {"mean_clipped": 0.1, "mean_outside_band": 0.2, "outside_slope": 0.031, "lre_max": 0.1, "lre_mean": 0.05}
    row = {
        "method": "rloo",
        "range": "own",
        "lre_noise": 0.0299,
        "sentence": "outside-band share rises with length: +3.1",
    }
    for key, value in numbers.items():
        row |= {key: value, f"{key}_low": 0.9 * value, f"{key}_high": NAN if key == "lre_mean" else 1.1 * value}
    return pd.DataFrame([row])


def texts(cells: Iterable[object]) -> list[str]:
    """What a reader sees in some cells."""
    return [str(cell) for cell in cells]


def test_accuracy_table_is_golden() -> None:
    assert markdown(accuracy_table(accuracies())) == (
        "| model | add | mean of sets | seeds | truncated |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| base | 31.0 [28.0, 34.0] | 30.5 [28.0, 33.0] | – | 12.5 |\n"
        "| fspo | 47.3 [44.1, 50.2] | 46.0 [44.0, 48.0] | 3 | 0.0 |\n"
    )


def test_undecided_answers_get_a_column_when_there_are_any() -> None:
    table = accuracy_table(accuracies(undecided=0.021))
    assert texts(table["undecided"]) == ["2.1", "0.0"]
    assert "undecided" not in accuracy_table(accuracies())


def test_responses_without_an_answer_get_a_column_when_there_are_any() -> None:
    table = accuracy_table(accuracies(no_answer=0.034))
    assert texts(table["no answer"]) == ["3.4", "0.0"]
    assert "no answer" not in accuracy_table(accuracies(undecided=0.021))


def test_difference_table_shows_signs_and_the_verdict_of_the_mean() -> None:
    table = difference_table(differences())
    assert table["model"].tolist() == ["fspo − base", "grpo − base"]
    assert texts(table["add"]) == ["+16.3 [+13.0, +20.0]", "-0.04 [-2.0, +2.0]"]
    assert texts(table["p (Holm)"]) == ["0.0004", "0.9000"]
    assert texts(table["detectable"]) == ["4.3", "3.1"]
    assert table["verdict"].tolist() == ["better, few seeds", "under-powered, few seeds"]
    assert texts(difference_table(differences(), "grpo")["add"]) == ["+10.0 [–, –]"]
    assert difference_table(differences(), "ppo").empty


def test_verdict_lines_say_what_could_have_been_found() -> None:
    assert verdict_lines(differences()) == [
        "fspo against base: better, few seeds (+15.5 [+12.5, +18.6] points, 3 seeds)",
        "grpo against base: under-powered, few seeds (-0.04 [-2.0, +2.0] points, 1 seed)"
        "; a true difference of 3.1 points would be found with 80 % power",
        "fspo against grpo: no variation, few seeds (+10.0 [–, –] points, 3 seeds)",
    ]


def test_fairness_table_is_golden() -> None:
    (row,) = fairness_table(fairness()).to_dict("records")
    assert {name: str(cell) for name, cell in row.items()} == {
        "method": "rloo",
        "range": "own",
        "clipped": "10.0 [9.0, 11.0]",
        "outside band": "20.0 [18.0, 22.0]",
        "slope per doubling": "+3.1 [+2.8, +3.4]",
        "LRE max": "0.100 [0.090, 0.110]",
        "LRE noise": "0.030",
        "LRE mean": "0.050 [0.045, –]",
        "supported": "outside-band share rises with length",
    }


def test_pipes_backslashes_and_line_breaks_cannot_break_a_table() -> None:
    text = markdown(pd.DataFrame({"a|b": ["x|y\nz", "back\\slash|"]}))
    assert text == "| a\\|b |\n| --- |\n| x\\|y z |\n| back\\\\slash\\| |\n"


def test_columns_of_numbers_are_right_and_all_others_left() -> None:
    columns = {
        "text": ["12", "–"],
        "number": [Number("+1.0"), ABSENT],
        "both": [Number("1"), ""],
        "raw": [0.5, 2.0],
        "count": [3, 4],
        "nan": [0.5, NAN],
        "truth": [True, False],
    }
    frame = pd.DataFrame(columns)
    assert markdown(frame).splitlines()[1] == "| --- | ---: | --- | ---: | ---: | --- | --- |"
    assert markdown(frame.iloc[:0, :2]) == "| text | number |\n| --- | --- |\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [((0.12345,), "12.3"), ((-0.0001,), "0.0"), ((NAN, 0.1, 0.2), "–"), ((0.5, NAN, 0.7), "50.0 [–, 70.0]")],
)
def test_percent(arguments: tuple[float, ...], text: str) -> None:
    assert percent(*arguments) == text


def test_csv_is_written_whole_with_ten_digits(tmp_path: Path) -> None:
    tidy = pd.DataFrame({"x": [0.1 + 0.2, NAN], "name": ["a,b", "c"]})
    write_csv(tmp_path / "c.csv", tidy)
    assert (tmp_path / "c.csv").read_bytes() == b'x,name\n0.3,"a,b"\n,c\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.csv"]


def test_a_linked_number_is_still_right_aligned() -> None:
    table = pd.DataFrame({"accuracy": [Number("47.3 [44.1, 50.2]", "runs-of-fspo")], "why": ["[text](#x)"]})
    assert markdown(table).splitlines()[1:] == ["| ---: | --- |", "| [47.3 [44.1, 50.2]](#runs-of-fspo) | [text](#x) |"]
