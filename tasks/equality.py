"""When two answers are equal. Numbers exactly; the kinds `tasks.values` tells apart, each by its own rule.

What takes computer algebra is asked of the caller, expression by expression, so that nothing here can hang.

Source: ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from fractions import Fraction

from tasks.spelling import NUMERAL
from tasks.values import (
    Equation,
    Expression,
    InBase,
    Matrix,
    Nothing,
    Number,
    Several,
    Value,
    Words,
    is_no_number,
    letters,
)

Ask = Callable[[str, str], bool | None]
"""Whether two LaTeX expressions (gold, answer) are equal; None: not known."""
BARE = frozenset({"", "{}", "()"})
"""What a list without brackets may stand for."""
NEAR = Fraction(1, 10**4)
"""How far, relative to the larger, a decimal may be from a fraction that it is to stand for before anybody is asked."""

_SIGNED = re.compile(rf"[+-]?{NUMERAL}\.?")


def same_numeral(gold: str, answer: str) -> bool | None:
    """Whether two plain numerals, of any length, are the same number; None where one of the texts is more than that."""
    gold, answer = gold.strip(), answer.strip()
    if not _SIGNED.fullmatch(gold) or not _SIGNED.fullmatch(answer):
        return None
    return _canonical(gold) == _canonical(answer)


def _canonical(numeral: str) -> tuple[bool, str, str]:
    """Sign, whole and decimal digits without idle zeros: `int` refuses a numeral of more than some thousand digits."""
    whole, _, decimals = re.sub("[+, -]", "", numeral).removesuffix(".").partition(".")
    digits = whole.lstrip("0"), decimals.rstrip("0")
    return numeral.startswith("-") and digits != ("", ""), *digits


def alike(gold: Value, answer: Value, ask: Ask) -> bool | None:
    """Whether an answer is the gold one; None where nobody knows."""
    match gold, answer:
        case Number(), Number():
            return _same_number(gold, answer, ask)
        case (InBase(), _) | (_, InBase()):
            return _same_in_base(gold, answer)
        case Matrix(), Matrix():
            return _same_rows(gold.rows, answer.rows, ask)
        case Several(), Several():
            return _same_several(gold, answer, ask)
        case Several(":", (Number(above), Number(below))), Number(value):
            return below != 0 and above / below == value
        case Several(parts=(one,)), _:
            return alike(one, answer, ask)
        case Words(), Words():
            return gold.words == answer.words
        case (Words(words), Expression(text)) | (Expression(text), Words(words)):
            bare = text.lower().strip("(){}[]. ")
            return bare == words if len(words) == 1 else letters(text) == words
        case Equation(), Equation() | Expression():  # the ratio of a gold V_1:V_2 = 11:21 is its answer
            return ask(gold.latex, answer.latex)
        case (Equation(), _) | (_, Equation()) | (Nothing(), _) | (_, Nothing()):
            return False
        case (Words(), _) | (_, Words()):
            return False
        case (Number(), Several() | Matrix()) | (Several() | Matrix(), Number()):
            return False
        case (Number(), Expression(text)) | (Expression(text), Number()) if is_no_number(text):
            return False
        case _:
            return ask(_asked(gold), _asked(answer))


def latex(value: Value) -> str:
    """The value in LaTeX that computer algebra reads."""
    match value:
        case Number(number, percent):
            above, below = number.numerator, number.denominator
            body = str(above) if below == 1 else rf"\frac{{{above}}}{{{below}}}"
            return body + (r"\%" if percent else "")
        case InBase(digits, base):
            return f"{digits}_{{{base}}}"
        case Several(brackets, parts):
            if brackets == ":":
                return ":".join(map(latex, parts))
            left, right = {"": ("", ""), "{}": (r"\{", r"\}")}.get(brackets) or tuple(brackets)
            return left + ",".join(map(latex, parts)) + right
        case Matrix(rows):
            return r"\begin{pmatrix}" + r"\\".join("&".join(map(latex, row)) for row in rows) + r"\end{pmatrix}"
        case Words(words):
            return rf"\text{{{words}}}"
        case Equation(text) | Expression(text):
            return text
        case Nothing():
            return ""


def key(value: Value) -> str:
    """One text for all spellings of a value, as far as no computer algebra is needed: what votes are counted by."""
    match value:
        case Number(number, percent):
            return f"{number}%" if percent else str(number)
        case InBase(digits, base):
            return f"{digits}_{base}"
        case Several(brackets, parts):
            inner = [key(part) for part in parts]
            unordered = brackets in ("", "{}")
            return (brackets[:1] or "{") + ", ".join(sorted(inner) if unordered else inner) + (brackets[1:] or "}")
        case Matrix(rows):
            return "; ".join(", ".join(map(key, row)) for row in rows)
        case Words(words):
            return words
        case Equation(latex) | Expression(latex):
            return latex.replace(" ", "") if "\\" not in latex else latex
        case Nothing():
            return ""


def _same_number(gold: Number, answer: Number, ask: Ask) -> bool | None:
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    hundredfold = answer.percent and not gold.percent and abs(gold.value) < 1  # half a per cent is no half
    if gold.value == answer.value and not hundredfold:
        return True
    if gold.percent != answer.percent:
        percent, plain = (gold, answer) if gold.percent else (answer, gold)
        if percent.value == 100 * plain.value:
            return True
    if gold.rounded == answer.rounded or gold.value.denominator == answer.value.denominator == 1:
        return False
    # 1/3 against 0.333333: how many digits are enough is for math-verify to say, among numbers that are near.
    if abs(gold.value - answer.value) > NEAR * max(abs(gold.value), abs(answer.value)):
        return False
    return ask(_asked(gold), _asked(answer))


def _asked(value: Value) -> str:
    """The value as computer algebra is asked about it: a decimal stays one, so that it may be near a constant."""
    if isinstance(value, Number) and value.rounded and value.value.denominator != 1:
        with suppress(OverflowError):
            return repr(float(value.value)) + (r"\%" if value.percent else "")
    return latex(value)


def _same_in_base(gold: Value, answer: Value) -> bool:
    match gold, answer:
        case InBase(), InBase():
            return gold == answer
        case InBase(digits), Number(value):
            return str(value) == digits
        case Number(value), InBase(digits, base):
            return value == int(digits, base)
        case _:
            return False


def _same_rows(gold: Sequence[Sequence[Value]], answer: Sequence[Sequence[Value]], ask: Ask) -> bool | None:
    if [len(row) for row in gold] != [len(row) for row in answer]:
        return False
    return _all(
        alike(g, a, ask) for one, other in zip(gold, answer, strict=True) for g, a in zip(one, other, strict=True)
    )


def _same_several(gold: Several, answer: Several, ask: Ask) -> bool | None:
    kinds = {gold.brackets, answer.brackets}
    if ":" in kinds:
        return kinds == {":"} and _same_ratio(gold.parts, answer.parts)
    if len(kinds) == 2 and not ("" in kinds and kinds <= BARE):  # a list without brackets stands for a set or a tuple
        return False
    if kinds <= {"", "{}"}:
        return _matched(_distinct(gold.parts), _distinct(answer.parts), ask)
    if len(gold.parts) != len(answer.parts):
        return False
    return _all(alike(g, a, ask) for g, a in zip(gold.parts, answer.parts, strict=True))


def _same_ratio(gold: Sequence[Value], answer: Sequence[Value]) -> bool:
    """In proportion, part by part; with a zero in it (a time, say) part by part the same."""
    one, other = ([part.value for part in parts if isinstance(part, Number)] for parts in (gold, answer))
    if len(one) != len(other) or 0 in (*one, *other):
        return one == other
    return all(a * other[0] == b * one[0] for a, b in zip(one, other, strict=True))


def _all(found: Iterable[bool | None]) -> bool | None:
    """False where one is; else None where one is not known; else True."""
    known: bool | None = True
    for one in found:
        if one is False:
            return False
        known = known if one else None
    return known


def _distinct(parts: Sequence[Value]) -> Sequence[Value]:
    """The members of a set: a value that is written twice is one."""
    return list({key(part): part for part in parts}.values())


def _matched(gold: Sequence[Value], answer: Sequence[Value], ask: Ask) -> bool | None:
    """Whether every gold part has an answer part of its own. Equality is transitive: the first that fits is enough."""
    if len(gold) != len(answer):
        return False
    left, unknown = list(answer), False
    for one in gold:
        same = [alike(one, other, ask) for other in left]
        if True in same:
            del left[same.index(True)]
        elif None in same:
            unknown = True
        else:
            return False
    return None if unknown else True
