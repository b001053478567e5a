"""The one grader: the reward in training and the score in evaluation come from here.

**Where the answer is.** The last `\\boxed{...}` of the response; else the rest of the line after the last `####`; else,
where the gold answer is a number, the last number of the text; else there is none, and the response is wrong.

**When it is right.** Numbers are compared exactly: `18`, `18.0`, `+18` and `$18` are one number, so are `1,234` and
`1234`, `1/2` and `0.5`. A per cent sign on one side only may stand for itself or for a hundredth: `18%` equals 18 and
0.18. Other texts are equal when they read the same after harmless LaTeX is removed, or when math-verify says so.

**When nobody knows.** An answer too long, too deeply nested or of absurd size for computer algebra, and one that runs
out of its bounds of time or memory, is UNDECIDED. It costs the rows after it nothing.

Source: ours; symbolic equality by math-verify 0.9.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from fractions import Fraction

from suite.types import Problem, Verdict
from tasks import symbolic

LONGEST_ANSWER = 1000
DEEPEST_NESTING = 20
LONGEST_NUMBER = 300

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_NUMERAL = re.compile(rf"[+-]?(?:{_DIGITS})")
_RATIO = re.compile(rf"({_NUMERAL.pattern})\s*/\s*({_NUMERAL.pattern})")
_FRAC = re.compile(rf"([+-]?)\\frac\{{({_NUMERAL.pattern})\}}\{{({_NUMERAL.pattern})\}}")
_PROSE_NUMBER = re.compile(rf"(?<![\w.,)])[+-]?\$?(?:{_DIGITS})(?:/[0-9]+)?%?|(?:{_DIGITS})%?")
_NUMBER_AND_UNIT = re.compile(rf"([+-]?\$?(?:{_DIGITS})%?)\s+(?!.*\b(?:or|and)\b)[A-Za-z][A-Za-z .]*")
_BRACE_OR_ESCAPE = re.compile(r"\\.|[{}]", re.DOTALL)
_HARMLESS = re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[!,;: ]")
_ABSURD = re.compile(
    r"\\(?:sum|prod|int|lim)(?![A-Za-z])"  # still to be evaluated: no final answer
    r"|\^\s*\{?\s*[+-]?[0-9]{5}"  # an exponent of five digits
    r"|[0-9]\s*\^\s*[{(]*\s*[0-9]+\s*\^"  # a tower of powers
    r"|[0-9]{4}\s*!"  # the factorial of a thousand and more
    r"|[!^][^()]*\)\s*!"  # of a power or of a factorial
    r"|[0-9][eE][+-]?[0-9]{4}"
)


def grade(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """The verdict of each (response text, gold answer), in order; raises for no response.

    >>> grade([("6 * 3 = 18\\n#### 18", "18"), ("I guess 17.", "18")])
    [<Verdict.CORRECT: 'correct'>, <Verdict.WRONG: 'wrong'>]
    """
    return [_verdict(response, gold) for response, gold in pairs]


def grade_problems(pairs: Sequence[tuple[str, Problem]]) -> list[Verdict]:
    """`Task.grade` of every task whose gold answers are numbers or LaTeX."""
    return grade([(response, problem.gold) for response, problem in pairs])


def final_answer(response: str, gold: str) -> str | None:
    """The text of the response that is compared with the gold answer, by the rule of this module; None = there is none.

    >>> final_answer("so \\\\boxed{3} apples, then \\\\boxed{\\\\frac{1}{2}}", "3")
    '\\\\frac{1}{2}'
    >>> final_answer("She pays $4, then 1,234 more.", "7")
    '1,234'
    """
    boxed = _last_box(response)
    if boxed is not None:
        return boxed
    numeric = _exact(_clean(gold).removesuffix("%")) is not None
    _, mark, rest = response.rpartition("####")
    line = rest.split("\n", 1)[0].strip()
    if mark and line:
        with_unit = _NUMBER_AND_UNIT.fullmatch(line) if numeric and len(line) <= LONGEST_ANSWER else None
        return with_unit[1] if with_unit else line
    if not numeric:
        return None
    numbers = [found[0] for found in _PROSE_NUMBER.finditer(response.replace("−", "-"))]
    return numbers[-1] if numbers else None


def equivalent(gold: str, answer: str) -> Verdict:
    """Whether an answer equals the gold answer: as texts, as exact numbers, by computer algebra within its bounds."""
    gold, answer = _clean(gold), _clean(answer)
    if not answer:
        return Verdict.WRONG
    if gold == answer:
        return Verdict.CORRECT
    same = _same_number(gold, answer)
    if same is not None:
        return Verdict.CORRECT if same else Verdict.WRONG
    if _is_absurd(gold) or _is_absurd(answer):
        return Verdict.UNDECIDED
    return symbolic.equal(gold, answer)


def _verdict(response: str, gold: str) -> Verdict:
    answer = final_answer(response, gold)
    if answer is None:
        return Verdict.WRONG
    return (_remembered if len(answer) <= LONGEST_ANSWER else equivalent)(gold, answer)


# The samples of one problem repeat one another, and a policy in trouble repeats one hostile answer.
_remembered = functools.lru_cache(maxsize=1 << 14)(equivalent)


def _last_box(text: str) -> str | None:
    """The content of the last `\\boxed{...}`; None without one, or when its brace never closes."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for token in _BRACE_OR_ESCAPE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return text[start : token.start()]
    return None


def _clean(text: str) -> str:
    """The text without what never changes a value: spaces around it, math-mode and currency signs, size commands."""
    text = text.replace("−", "-").replace("{,}", ",").replace("\\$", "$").replace("\\%", "%")
    text = _HARMLESS.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = text.strip().strip("$").strip().removesuffix(".")
    return re.sub(r"^([+-]?)[$€£]\s*", r"\1", text)


def _same_number(gold: str, answer: str) -> bool | None:
    """Whether two cleaned texts are the same number; None where that needs more than exact arithmetic."""
    if _NUMERAL.fullmatch(gold) and _NUMERAL.fullmatch(answer):
        return _canonical(gold) == _canonical(answer)
    left, right = _exact(gold.removesuffix("%")), _exact(answer.removesuffix("%"))
    if left is None or right is None:
        return None
    if left == right:
        return True
    if gold.endswith("%") != answer.endswith("%"):
        percent, plain = (left, right) if gold.endswith("%") else (right, left)
        return percent == 100 * plain
    # 1/3 against 0.333333: how many digits are enough is for math-verify to say.
    return None if ("." in gold) != ("." in answer) else False


def _exact(text: str) -> Fraction | None:
    """The value of a numeral, of `a/b` or of `\\frac{a}{b}`; None for other texts, and for numbers without end."""
    if len(text) > LONGEST_NUMBER:
        return None
    if _NUMERAL.fullmatch(text):
        return _fraction(text)
    if ratio := _RATIO.fullmatch(text):
        sign, above, below = "", ratio[1], ratio[2]
    elif ratio := _FRAC.fullmatch(text):
        sign, above, below = ratio[1], ratio[2], ratio[3]
    else:
        return None
    divisor = _fraction(below)
    return None if divisor == 0 else _fraction(above) / divisor * (-1 if sign == "-" else 1)


def _fraction(numeral: str) -> Fraction:
    return Fraction(numeral.replace(",", ""))


def _canonical(numeral: str) -> tuple[bool, str, str]:
    """Sign, whole and decimal digits without idle zeros: works for a numeral of any length, which `int` refuses."""
    whole, _, decimals = numeral.lstrip("+-").replace(",", "").partition(".")
    digits = whole.lstrip("0"), decimals.rstrip("0")
    return numeral.startswith("-") and digits != ("", ""), *digits


def _is_absurd(text: str) -> bool:
    """Whether a text is beyond what computer algebra should be asked: length, nesting, powers, factorials, sums."""
    return len(text) > LONGEST_ANSWER or _nesting(text) > DEEPEST_NESTING or _ABSURD.search(text) is not None


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    return deepest
