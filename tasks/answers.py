"""Where the answer of a response is. Pure text: nothing here runs computer algebra, so nothing here can hang.

What the answer is, `tasks.values` reads; when it is right, `tasks.equality` says. Source: ours.
"""

from __future__ import annotations

import re

from tasks.arithmetic import Huge, exact
from tasks.equality import key
from tasks.prose import after_label, last_formula, last_number
from tasks.values import DEEPEST_NESTING, Equation, Number, Words, nesting, read

LONGEST_ANSWER = 1000
LONGEST_BETWEEN = 60
"""Characters between two boxes that may be one answer."""

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])(?: ?\[[^\][\\]*\])* *")
_BRACE_OR_ESCAPE = re.compile(r"\\.|[{}]", re.DOTALL)
_SPACE = r"(?:[\s$]|\\(?:q?quad|[,;: ()\]\[]))*"
_BETWEEN_BOXES = re.compile(
    rf"{_SPACE}[,;.]?{_SPACE}(?:\\text\s*\{{\s*)?(?:and|or)?(?:\s*\}})?{_SPACE}(?:[A-Za-z](?:_\{{?[A-Za-z0-9]\}}?)?\s*=\s*)?"
)
_ABSURD = re.compile(
    r"\\(?:sum|prod|int|lim)(?![A-Za-z])"  # still to be evaluated: no final answer
    r"|\^\s*\{?\s*[+-]?[0-9]{5}"  # an exponent of five digits
    r"|\)\s*\^\s*\{?\s*[0-9]{3}|!\s*!"  # a sum to the hundredth; the factorial of a factorial
    r"|[0-9]{4}\s*!"  # the factorial of a thousand and more
    r"|[!^][^()]*\)\s*!"  # of a power or of a factorial
    r"|[0-9][eE][+-]?[0-9]{4}"
)
_TOWER = re.compile(r"(?P<base>[0-9]+)\s*\^\s*(?P<exponent>[{(]*\s*-?\s*[0-9]+\s*\^[^A-Za-z\\,;=+]*)")


def final_answer(response: str, gold: str) -> str | None:
    """The text of the response that is compared with the gold answer, by the rule of this module; None = there is none.

    The last box; else the rest of the line after the last `####`; else what the prose ends with: its last number with
    all that it is a part of, where the gold answer is a number, and otherwise its last formula or what follows
    `Final answer:`. A sentence or an equation behind `####` is prose. An empty or unclosed last box is no answer.

    >>> final_answer("so \\\\boxed{3} apples, then \\\\boxed{\\\\frac{1}{2}}", "3")
    '\\\\frac{1}{2}'
    >>> [final_answer(text, "3") for text in ("She pays $4, then 1,234 more.", "I get 2^3", "so \\\\boxed{3")]
    ['1,234', '2^3', '']
    """
    boxed = last_box(response)
    if boxed is not None:
        return boxed
    _, mark, rest = response.rpartition("####")
    line = rest.split("\n", 1)[0].strip()
    if not mark or not line:
        return last_number(response) if is_number(gold) else last_formula(response)
    return (last_number(line) if _is_prose(line) and is_number(gold) else None) or line


def _is_prose(line: str) -> bool:
    """Whether a line is a sentence, which begins with a word, or an equation that is no value."""
    value = read(line)
    return isinstance(value, Equation) or (isinstance(value, Words) and value.words[:1].isalpha())


def vote(response: str, gold: str) -> str | None:
    """The final answer in one spelling, so that equal answers count together; None = there is none.

    Answers that computer algebra alone finds equal stay two.

    >>> [vote(response, "18") for response in ("#### 18.0", "so $18", "36/2 = \\\\boxed{\\\\frac{36}{2}}", "nothing")]
    ['18', '18', '18', None]
    """
    answer = final_answer(response, gold)
    return (key(read(answer)) or None) if answer is not None else None


def gold_answer(gold: str) -> str:
    """The answer of a gold text that may be a worked solution: its last box, or what it says that its answer is."""
    return last_box(gold) or after_label(gold) or gold


def is_number(gold: str) -> bool:
    """Whether a gold answer is one number, up to its spelling, a unit and a per cent sign."""
    return isinstance(read(gold_answer(gold)), Number)


def last_box(text: str) -> str | None:
    """The content of the last `\\boxed{...}`, or of the boxes that nothing but `and`, `or` and commas part from it.

    `\\fbox` and `\\framebox` are boxes too, and so is `\\boxed 5`. None without one; empty when its brace never closes.

    >>> [last_box(text) for text in ("\\\\fbox{x+1}.", "\\\\boxed{5} and \\\\boxed{10}", "\\\\boxed 5", "\\\\boxed{1")]
    ['x+1', '5, 10', '5', '']
    """
    found = list(_BOX.finditer(text))
    if not found:
        return None
    parts = []
    begins = len(text)
    for number, box in enumerate(reversed(found)):
        content, end = _content(text, box.end())
        near = content and end <= begins <= end + LONGEST_BETWEEN
        if number and not (near and _BETWEEN_BOXES.fullmatch(text, end, begins)):
            break
        parts.append(content)
        begins = box.start()
        if not content:
            break
    distinct = {key(read(part)): part for part in parts}
    return ", ".join(reversed(distinct.values()))


def _content(text: str, start: int) -> tuple[str, int]:
    """What a box that opens at `start` holds, and where it ends; nothing where it never closes."""
    if not text.startswith("{", start):
        end = next((t.end() for t in re.finditer(r"\S(?=[\s$}.,;]|\Z)", text[start:])), 0)
        return (text[start : start + end], start + end) if not text[start : start + 1].isspace() else ("", start)
    depth = 0
    for token in _BRACE_OR_ESCAPE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return text[start + 1 : token.start()].strip(), token.end()
    return "", len(text)


def is_absurd(text: str) -> bool:
    """Whether a text is beyond what computer algebra should be asked: length, nesting, powers, factorials, sums."""
    if len(text) > LONGEST_ANSWER or nesting(text) > DEEPEST_NESTING or _ABSURD.search(text) is not None:
        return True
    return any(_is_huge(f"{found['base']}^{found['exponent']}") for found in _TOWER.finditer(text))


def _is_huge(power: str) -> bool:
    """Whether a tower of powers is no number that can be computed."""
    opened = power.count("{") - power.count("}")
    try:
        return exact(power.rstrip(")") + "}" * opened) is None
    except Huge:
        return True
