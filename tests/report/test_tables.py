"""Markdown and CSV: golden text, escapes, and cells that say what the numbers say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest

from suite.report.markdown import markdown, write_csv
from suite.report.tables import (
    accuracy_table,
    by_set_table,
    declared_table,
    exploratory_table,
    fairness_table,
    informative,
    pairing_table,
    verdict_lines,
)
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
    cut = {"truncated_share": [0.25, 0.125, 0.0, 0.0], "mean_length": [36.1, 42.75, 40.0, 41.0]}
    return pd.DataFrame(rows, columns=columns).assign(**cut)


def differences() -> pd.DataFrame:
    columns = ["method", "reference", "task", "difference", "low", "high", "minimum_detectable"]
    columns += ["p_holm", "p_equal_holm", "seeds", "family", "verdict"]
    none = (NAN, NAN, NAN, 3, "exploratory", "exploratory")
    rows = [
        ("fspo", "base", "add", 0.1629, 0.13, 0.2, *none),
        ("fspo", "base", "mean", 0.155, 0.125, 0.186, *none),
        ("fspo", "grpo", "add", 0.1, 0.05, 0.15, 0.07, 0.00002, 1.0, 3, "sets", "better"),
        ("fspo", "grpo", "gcd", -0.14, -0.19, -0.08, 0.08, 0.004, 1.0, 3, "sets", "worse"),
        ("fspo", "grpo", "mean", -0.0004, -0.02, 0.02, 0.031, 0.9, 0.3, 3, "primary", "undecided"),
        ("fspo", "rloo", "mean", 0.001, -0.004, 0.006, 0.031, 0.9, 0.003, 3, "primary", "equal within 1 point"),
        ("fspo", "ppo", "mean", 0.1, NAN, NAN, *none),
        ("grpo", "rloo", "mean", 0.1, 0.05, 0.15, *none),
    ]
    return pd.DataFrame(rows, columns=columns)


def fairness() -> pd.DataFrame:
    numbers = {
        "mean_clipped": 0.1,
        "mean_outside_band": 0.2,
        "outside_slope": 0.031,
        "clipped_slope": -0.02,
        "all_clipped_slope": -0.01,
        "lre_max": 0.1,
    }
    row = {
        "method": "rloo",
        "range": "own",
        "lre_noise": 0.0299,
        "word": "uneven",
    }
    for key, value in numbers.items():
        row |= {key: value, f"{key}_low": 0.9 * value, f"{key}_high": 1.1 * value}
    return pd.DataFrame([row])


def texts(cells: Iterable[object]) -> list[str]:
    """What a reader sees in some cells."""
    return [str(cell) for cell in cells]


def test_accuracy_table_is_golden() -> None:
    assert markdown(accuracy_table(accuracies())) == (
        "| model | add | mean of sets | length | truncated | seeds |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| base | 31.0 [28.0, 34.0] | 30.5 [28.0, 33.0] | 42.8 | 12.5 | – |\n"
        "| fspo | 47.3 [44.1, 50.2] | 46.0 [44.0, 48.0] | 41.0 | 0.0 | 3 |\n"
    )


def test_undecided_answers_get_a_column_when_there_are_any() -> None:
    table = accuracy_table(accuracies(undecided=0.021))
    assert texts(table["undecided"]) == ["2.1", "0.0"]
    assert "undecided" not in accuracy_table(accuracies())


def test_responses_without_an_answer_get_a_column_when_there_are_any() -> None:
    table = accuracy_table(accuracies(no_answer=0.034))
    assert texts(table["no answer"]) == ["3.4", "0.0"]
    assert "no answer" not in accuracy_table(accuracies(undecided=0.021))


def test_old_results_without_lengths_say_so_and_columns_without_information_go() -> None:
    old = accuracies()
    old.loc[old["method"] == "base", "mean_length"] = NAN
    assert texts(accuracy_table(old)["length"]) == ["not recorded", "41.0"]
    assert "length" not in accuracy_table(old.assign(mean_length=NAN))
    said = accuracy_table(accuracies(), noise={"fspo": 0.0}, published={"fspo": "math500 64.7"})
    assert "null update" not in said
    assert texts(said["published"]) == ["not public", "math500 64.7"]
    assert texts(accuracy_table(accuracies(), noise={"fspo": 0.001})["null update"]) == ["–", "0.1"]
    assert informative(pd.DataFrame({"a": ["–", "not public"], "b": ["–", "1"]})).columns.tolist() == ["b"]


def test_lengths_and_missing_answers_stand_beside_each_accuracy() -> None:
    table = by_set_table(accuracies(no_answer=0.034))
    assert markdown(table) == (
        "| set | model | accuracy | length | truncated | no answer |\n"
        "| --- | --- | ---: | ---: | ---: | ---: |\n"
        "| add | base | 31.0 [28.0, 34.0] | 36.1 | 25.0 | 3.4 |\n"
        "| add | fspo | 47.3 [44.1, 50.2] | 40.0 | 0.0 | 0.0 |\n"
    )


def test_declared_pairs_show_single_sets_before_their_mean_and_never_a_p_of_0() -> None:
    table = declared_table(differences())
    assert table["difference"].tolist() == ["fspo − grpo", "fspo − rloo"]
    row = table.iloc[0]
    assert list(table.columns[1:5]) == ["verdict", "add", "gcd", "mean of sets"]
    assert texts(row[["add", "gcd", "mean of sets"]]) == [
        "+10.0 [+5.0, +15.0] better",
        "-14.0 [-19.0, -8.0] worse",
        "-0.04 [-2.0, +2.0]",
    ]
    assert texts(row[["p (Holm)", "p equal (Holm)", "detectable", "verdict"]]) == [".9000", ".3000", "3.1", "undecided"]
    assert table["verdict"].tolist() == ["undecided", "equal within 1 point"]


def test_exploratory_pairs_have_intervals_and_no_verdict() -> None:
    table = exploratory_table(differences())
    assert table["difference"].tolist() == ["fspo − base", "fspo − ppo"]  # rivals among themselves stay in the CSV
    assert texts(table["mean of sets"]) == ["+15.5 [+12.5, +18.6]", "+10.0 [–, –]"]
    assert "verdict" not in table


def test_verdict_lines_say_what_could_have_been_found_and_what_a_mean_hides() -> None:
    assert verdict_lines(differences()) == [
        "fspo against grpo: undecided (-0.04 [-2.0, +2.0] points, p .9000 after Holm, 3 seeds)"
        "; a true difference of 3.1 points would be found with 80 % power",
        "fspo against rloo: equal within 1 point (+0.1 [-0.4, +0.6] points, p .9000 after Holm, 3 seeds)",
        "single sets, a family of 2: fspo against grpo on add better (+10.0 [+5.0, +15.0] points, p < .0001 after Holm)"
        "; fspo against grpo on gcd worse (-14.0 [-19.0, -8.0] points, p .0040 after Holm)",
    ]
    nothing = differences().assign(verdict="undecided", seeds=1, minimum_detectable=NAN)
    for line in (verdict_lines(nothing)[0], verdict_lines(nothing)[-1]):
        assert line.endswith("; one seed does not show how much seeds differ")
    hopeless = differences().assign(verdict="undecided", minimum_detectable=3.04)  # two seeds: 304 points
    assert verdict_lines(hopeless)[0].endswith("; with so few seeds no difference would be found with 80 % power")
    assert texts(declared_table(hopeless)["detectable"]) == ["none", "none"]
    assert verdict_lines(differences().assign(verdict="undecided"))[-1] == (
        "single sets, a family of 2: no difference survives the correction; a true difference of 7.0 to 8.0 points, by "
        "set, would be found with 80 % power"
    )


def test_pairing_is_shown_for_declared_pairs() -> None:
    names = {"method": ["fspo", "fspo", "grpo"], "reference": ["base", "grpo", "rloo"], "task": "mean"}
    pairing = pd.DataFrame(names).assign(correlation=0.8, sample_correlation=NAN, variance_factor=12.0)
    (row,) = pairing_table(pairing, differences()).to_dict("records")
    assert texts(row.values()) == ["fspo − grpo", "+0.80", "–", "x 12.00"]


def test_fairness_table_is_golden() -> None:
    (row,) = fairness_table(fairness()).to_dict("records")
    assert {name: str(cell) for name, cell in row.items()} == {
        "method": "rloo",
        "range": "own",
        "clipped": "10.0 [9.0, 11.0]",
        "slope": "-2.0 [-1.8, -2.2]",
        "slope, all": "-1.0 [-0.9, -1.1]",
        "evenness": "uneven",
        "LRE": "0.100 [0.090, 0.110]",
        "LRE by chance": "0.030",
        "outside band": "20.0 [18.0, 22.0]",
        "its slope": "+3.1 [+2.8, +3.4]",
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


def test_a_text_that_a_spreadsheet_would_compute_is_kept_a_text(tmp_path: Path) -> None:
    tidy = pd.DataFrame({"name": ["=1+1", "@x", "fspo", "a=b", None], "x": [-1.5, 2, 3, 4, 5], "n": [-1, 2, 3, 4, 5]})
    write_csv(tmp_path / "c.csv", tidy)
    assert (tmp_path / "c.csv").read_text() == "name,x,n\n'=1+1,-1.5,-1\n'@x,2,2\nfspo,3,3\na=b,4,4\n,5,5\n"
