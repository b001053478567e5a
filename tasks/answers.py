"""Pure text: where the answer of a response is, what never changes a value, and when two answers are one number.

Nothing here runs computer algebra, so nothing here can hang. The rules that put it together are in `tasks.grading`.

Source: ours.
"""

from __future__ import annotations

import re
from fractions import Fraction

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


def final_answer(response: str, gold: str) -> str | None:
    """The text of the response that is compared with the gold answer, by the rule of this module; None = there is none.

    >>> final_answer("so \\\\boxed{3} apples, then \\\\boxed{\\\\frac{1}{2}}", "3")
    '\\\\frac{1}{2}'
    >>> final_answer("She pays $4, then 1,234 more.", "7")
    '1,234'
    """
    boxed = last_box(response)
    if boxed is not None:
        return boxed
    numeric = is_number(gold)
    _, mark, rest = response.rpartition("####")
    line = rest.split("\n", 1)[0].strip()
    if mark and line:
        with_unit = _NUMBER_AND_UNIT.fullmatch(line) if numeric and len(line) <= LONGEST_ANSWER else None
        return with_unit[1] if with_unit else line
    if not numeric:
        return None
    numbers = [found[0] for found in _PROSE_NUMBER.finditer(response.replace("−", "-"))]
    return numbers[-1] if numbers else None


def vote(response: str, gold: str) -> str | None:
    """The final answer in one spelling, so that equal answers count together; None = there is none.

    Numbers become fractions in lowest terms; other texts lose only what `clean` removes. Answers that computer algebra
    alone finds equal stay two.

    >>> [vote(response, "18") for response in ("#### 18.0", "so $18", "36/2 = \\\\boxed{\\\\frac{36}{2}}", "nothing")]
    ['18', '18', '18', None]
    """
    answer = final_answer(response, gold)
    if answer is None or not (cleaned := clean(answer)):
        return None
    value = _exact(cleaned)
    return cleaned if value is None else str(value)


def is_number(text: str) -> bool:
    """Whether a text is one number, up to what `clean` removes and a per cent sign."""
    return _exact(clean(text).removesuffix("%")) is not None


def last_box(text: str) -> str | None:
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


def clean(text: str) -> str:
    """The text without what never changes a value: spaces around it, math-mode and currency signs, size commands."""
    text = text.replace("−", "-").replace("{,}", ",").replace("\\$", "$").replace("\\%", "%")
    text = _HARMLESS.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = text.strip().strip("$").strip().removesuffix(".")
    return re.sub(r"^([+-]?)[$€£]\s*", r"\1", text)


def same_number(gold: str, answer: str) -> bool | None:
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


def is_absurd(text: str) -> bool:
    """Whether a text is beyond what computer algebra should be asked: length, nesting, powers, factorials, sums."""
    return len(text) > LONGEST_ANSWER or _nesting(text) > DEEPEST_NESTING or _ABSURD.search(text) is not None


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    return deepest
