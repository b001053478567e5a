"""What an answer is: a number, digits in a base, several values, a matrix, words, an equation or an expression.

`read` says which, from the text alone; whether two of them are equal is for `tasks.equality`. Every rule about a kind
of answer stands in the one reader of that kind.

Source: ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

from tasks.arithmetic import Huge, bounded, exact
from tasks.labels import FUNCTIONS, LETTERS, SUBSCRIPT, bare, is_name, without_rounding
from tasks.spelling import NUMERAL, one_spelling
from tasks.units import CURRENCIES, ORDINALS, SYMBOLS, UNITS, is_word, scale_of

LONGEST_READ = 20_000
"""Characters of the longest text that is read; a longer one is an Expression as it stands."""

_PLAIN = rf"[+-]?{NUMERAL}\.?(?:[eE][+-]?[0-9]+(?![0-9.]))?"
_TENS = r"(?: ?(?:\\times|\\cdot|\*) ?10 ?\^ ?(?:\{[+-]?[0-9]+\}|[+-]?[0-9]+))"
_RATIO = r"[+-]?\\frac ?\{[0-9.]+\} ?\{[0-9.]+\}|[+-]?[0-9]+ ?/ ?[0-9]+"
_PLAIN_NUMBER = re.compile(_PLAIN)
_WITH_UNIT = re.compile(rf"(?P<number>{_RATIO}|{_PLAIN}{_TENS}?) ?(?P<unit>[A-Za-z°\\].*?)")
_MIXED = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]{1,99})"
    r"(?: ?\\frac\{(?P<a>[0-9]{1,99})\}\{(?P<b>[0-9]{1,99})\}| (?P<c>[0-9]{1,99}) ?/ ?(?P<d>[0-9]{1,99}))"
)
_REPEATING = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]{0,99})\.(?P<fixed>[0-9]{0,99})\\(?:overline|bar|dot) ?\{(?P<again>[0-9]{1,99})\}"
)
_BASE = re.compile(r"(?P<digits>[0-9][0-9A-Za-z]{0,99}) ?_ ?(?:\{ ?(?P<base>[0-9]{1,2}) ?\}|(?P<short>[0-9]{1,2}))")
_MEMBER = re.compile(rf"(?:{LETTERS}{SUBSCRIPT}) ?\\in(?![A-Za-z]) ?(?P<set>.+)")
_TEXT = re.compile(r"\\(?:text[a-z]*|mbox|mathrm|mathbf|operatorname) ?\{([^{}]*)\}")
_UNIT_AFTER = re.compile(r"(?<=[)\]}]) ?\\(?:text|mbox|mathrm) ?\{ ?(?!and\b|or\b)[A-Za-z ]+\}$")
_MATRIX = re.compile(r"\\begin ?\{([pb]?matrix|array)\} ?(?:\{[lcr| ]*\})?((?:(?!\\begin).)*)\\end ?\{\1\}", re.DOTALL)
_ROW_END = re.compile(r"\\\\(?: ?\[[^\]]*\])?|\\cr(?![A-Za-z])")
_EQUALS = re.compile(r"(?<![<>!])=(?!=)")
_PERCENT = re.compile(r" ?(?:%|(?:\\text ?\{)? ?\b(?:per ?cent|percentage|pct)\b ?\}?)$", re.IGNORECASE)
_JOINED = re.compile(r",? ?(?:\\text ?\{,? ?(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])) ?")
_WORD = re.compile(r"[A-Za-z]{2}")
_NOT_A_UNIT = re.compile(
    r"\b(?:(?:ten|hundred|thousand|third|quarter|fifth|sixth|eighth|ninth)(?:th)?s?|tens|lakh|crore|gross|quadrillion)\b"
    r"|\b(?:doubled|tripled|halved|less|fewer|more|than|least|most|not|negative|choose|root|twice|half|wrong)\b"
    r"|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|infinity|pi|true|false)\b"
    r"|\b(?:and|or|squared|cubed|factorial|times|plus|minus|over|divided|mod|to|of|if|when|for|because|since)\b"
    r"|\bper ?cent\b|[\\^_=<>+*|(){}\[\];:,$0-9]",
    re.IGNORECASE,
)
DEEPEST_NESTING = 20
_ODD = re.compile(r"[0-9e] +[0-9]|[0-9] ?\\(?:text|mathrm) ?\{ ?[0-9]|[0-9] ?_|\\[lc]?dots(?![A-Za-z])|/ ?=")
_OPENING, _CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Number:
    """An exact number. `percent`: written with a per cent sign; `rounded`: with a decimal point; `unit`: if known."""

    value: Fraction
    percent: bool = False
    rounded: bool = False
    unit: str = field(default="", compare=False)


@dataclass(frozen=True)
class InBase:
    """Digits that are written with their base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Several:
    """Values in brackets: `()`, `[)` and so on for tuples and intervals, `{}` for sets; `:` for a ratio.

    A bare list has no brackets.
    """

    brackets: str
    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of values."""

    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Words:
    """A text, in small letters: case, spaces and punctuation do not count."""

    words: str


@dataclass(frozen=True)
class Equation:
    """An equation that gives no name its value: it stands for itself."""

    latex: str


@dataclass(frozen=True)
class Expression:
    """Anything else, in LaTeX: for computer algebra."""

    latex: str


@dataclass(frozen=True)
class Nothing:
    """No answer at all."""


Value = Number | InBase | Several | Matrix | Words | Equation | Expression | Nothing


@lru_cache(maxsize=4096)
def read(text: str) -> Value:
    """What the text of an answer is.

    >>> read("\\\\text{Answer: }18 dollars"), read("2516_8"), read("\\\\varnothing")
    (Number(value=Fraction(18, 1), percent=False, rounded=False, unit='dollars'), InBase(digits='2516', base=8), \
Expression(latex='\\\\emptyset'))
    """
    if len(text) > LONGEST_READ or nesting(text) > DEEPEST_NESTING:
        return Expression(text)
    text = without_rounding(bare(one_spelling(text)))
    return _statement(text) if text else Nothing()


def nesting(text: str) -> int:
    """How deep the brackets of a text are nested."""
    depth = deepest = 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        deepest = max(deepest, depth)
    return deepest


def equation(text: str) -> Equation | None:
    """The text as an equation that stands for itself, also where `read` takes it for the value of a name."""
    text = bare(one_spelling(text))
    return Equation(text) if len(text) <= LONGEST_READ and len(_sides(text)) > 1 else None


def _statement(text: str) -> Value:
    """A value, or what an equation says."""
    if member := _MEMBER.fullmatch(text):
        return _value(member["set"])
    sides = _sides(text)
    return _value(text) if len(sides) < 2 else _several(text) or _equation(text, sides)


def _sides(text: str) -> list[str]:
    """What stands on the sides of equals signs that are in no brackets."""
    if "=" not in text or "\\begin" in text:
        return [text]
    cuts = [sign.start() for sign in _EQUALS.finditer(text) if _depth(text[: sign.start()]) == 0]
    return [text[start:end].strip() for start, end in zip([0, *(c + 1 for c in cuts)], [*cuts, None], strict=True)]


def _depth(text: str) -> int:
    return sum(map(text.count, _OPENING)) - sum(map(text.count, _CLOSING))


def _equation(text: str, sides: list[str]) -> Value:
    """The value that a name is given, on either side; other equations stand for no value."""
    named = [is_name(side) for side in sides]
    if all(sides):
        values = [_value(side) for side in sides[1:]]
        if named[0] and len({value for value in values if isinstance(value, Number)}) < 2:
            return values[-1]
        if len(sides) == 2 and named[1]:
            return _value(sides[0])
    return Equation(text)


def _value(text: str) -> Value:
    whole = _TEXT.fullmatch(text)
    if whole and (number := _number(bare(whole[1]))):
        return number
    if text[:1] in _OPENING and (unit := _UNIT_AFTER.search(text)):
        text = text[: unit.start()].strip()
    for reader in (_number, _in_base, _matrix, _ratio, _several, _words):
        found = reader(text)
        if found is not None:
            return found
    return Expression(re.sub(r"(?<=[0-9]) (?=[A-Za-z])", "", text))


# --- numbers --------------------------------------------------------------------------------------


def _number(text: str) -> Number | None:
    if not any(c.isdigit() for c in text) or "\\begin" in text:
        return None
    text = re.sub(r"^(?:\\text ?\{ ?)?(?:negative|minus) ?\}? ?(?=[0-9.\\$])", "-", text, flags=re.IGNORECASE)
    plain = re.sub(r"^([+-]?) ?[$€£] ?", r"\1", text)
    plain = re.sub(r" ?[$€£]$", "", plain)
    unit = next((CURRENCIES.get(c, "") for c in text if c in "$€£"), "") if plain != text else ""
    for reader in (_written, _mixed, _repeating):
        found = reader(plain)
        if found is not None:
            return Number(found.value, found.percent, found.rounded, unit)
    return _with_unit(text) if plain == text else None


def _exact(text: str) -> Fraction | None:
    try:
        return exact(text)
    except Huge:
        return None


def _written(text: str) -> Number | None:
    percent = _PERCENT.search(text)
    body = text[: percent.start()].strip() if percent else text
    if _PLAIN_NUMBER.fullmatch(body):
        body = re.sub(r"[, ](?=[0-9]{3})", "", body)
    value = _exact(body)
    return None if value is None else Number(value, percent is not None, "." in body)


def _mixed(text: str) -> Number | None:
    percent = _PERCENT.search(text)
    found = _MIXED.fullmatch(text[: percent.start()].strip() if percent else text)
    if not found:
        return None
    above, below = int(found["a"] or found["c"]), int(found["b"] or found["d"])
    if below == 0:
        return None
    value = int(found["whole"]) + Fraction(above, below)
    return Number(-value if found["sign"] == "-" else value, percent is not None)


def _repeating(text: str) -> Number | None:
    found = _REPEATING.fullmatch(text)
    if not found:
        return None
    fixed, again = found["fixed"], found["again"]
    value = Fraction(int(found["whole"] or 0)) + (Fraction(int(fixed), 10 ** len(fixed)) if fixed else 0)
    value += Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(fixed))
    return Number(-value if found["sign"] == "-" else value)


def _with_unit(text: str) -> Number | None:
    """A number and words after it. They say nothing of its value, but for scales such as `million` and `dozen`."""
    plain = " ".join(_TEXT.sub(r" \1 ", text).replace("\\degree", " degrees").split())
    plain = re.sub(rf" ?\^ ?\{{? ?({ORDINALS.pattern}) ?\}}?$", r" \1", plain)
    found = _WITH_UNIT.fullmatch(plain)
    number = _written(found["number"]) if found else None
    if found is None or number is None:
        return None
    unit = re.sub(r"(?<=[A-Za-z]) ?\^ ?(?:\{-?[1-3]\}|-?[1-3])", "", found["unit"]).rstrip(". ")
    value, words = number.value, re.sub(r" ?(?:/|\\cdot(?![A-Za-z])|·) ?(?=[A-Za-z])|-(?=[A-Za-z])", " ", unit).split()
    try:
        while words and (scale := scale_of(words[0])) is not None:
            value, words = bounded(value * scale), words[1:]
            words = words[1:] if words[:1] == ["of"] else words
    except Huge:
        return None
    if _NOT_A_UNIT.search(" ".join(words)) or not all(_is_unit(word, text) for word in words):
        return None
    return Number(value, rounded=number.rounded, unit=UNITS.get(unit.lower(), ""))


def _is_unit(word: str, text: str) -> bool:
    """Whether a word after a number can be a unit: 5x and 5abc are expressions, and so is 5m."""
    known = word.lower() in UNITS or word in SYMBOLS or ORDINALS.fullmatch(word) is not None
    apart = "\\" in text or " " in text
    if known:
        return len(word) > 1 or apart
    return is_word(word) and not FUNCTIONS.fullmatch(word)


def _in_base(text: str) -> InBase | None:
    found = _BASE.fullmatch(_TEXT.sub(r"\1", text))
    if not found:
        return None
    base = int(found["base"] or found["short"])
    try:
        int(found["digits"], base)
    except ValueError:
        return None
    return InBase(found["digits"].lstrip("0").upper() or "0", base)


def _ratio(text: str) -> Several | None:
    parts = [_number(part.strip()) for part in text.split(":")] if ":" in text and not text.startswith(":") else []
    return Several(":", tuple(part for part in parts if part)) if len(parts) > 1 and all(parts) else None


# --- several values -------------------------------------------------------------------------------


def _matrix(text: str) -> Matrix | None:
    found = _MATRIX.fullmatch(text)
    if not found:
        return None
    rows = [row for row in _ROW_END.split(found[2].replace("\\hline", "").strip()) if row.strip()]
    return Matrix(
        tuple(tuple(_value(c) if (c := cell.strip()) else Nothing() for cell in row.split("&")) for row in rows)
    )


def _several(text: str) -> Several | None:
    """Values with commas, semicolons, `and` or `or` between them, in brackets or bare."""
    if not text:
        return None
    if text.startswith(r"\{") and text.endswith(r"\}"):
        brackets, inner = "{}", text[2:-2]
    elif text[0] in "([" and text[-1] in ")]" and _closes_at_end(text):
        brackets, inner = text[0] + text[-1], text[1:-1]
    else:
        brackets, inner = "", _JOINED.sub(", ", text)
    parts = [part.strip() for part in _split(inner, listed=not brackets)]
    if (len(parts) < 2 and brackets != "{}") or not all(parts):
        return None
    if not brackets and any(_is_prose(part) for part in parts):
        return None
    return Several(brackets, tuple(map(_statement, parts)))


def _is_prose(part: str) -> bool:
    return len(_sides(part)) < 2 and bool(_WORD.search(re.sub(r"\\[A-Za-z]+", "", _TEXT.sub("", part))))


def _closes_at_end(text: str) -> bool:
    depth = 0
    for i, c in enumerate(text):
        depth += (c in _OPENING) - (c in _CLOSING)
        if depth == 0:
            return i == len(text) - 1
    return False


def _split(text: str, listed: bool) -> Iterable[str]:
    """At commas and semicolons that stand in no bracket; in a bare list the comma of 1,234 parts nothing."""
    start = depth = 0
    for i, c in enumerate(text):
        depth += (c in _OPENING) - (c in _CLOSING)
        grouping = listed and c == "," and re.match(r"[0-9]{3}(?![0-9])", text[i + 1 :]) and text[i - 1 : i].isdigit()
        if c in ",;" and depth == 0 and not grouping:
            yield text[start:i]
            start = i + 1
    yield text[start:]


# --- words ----------------------------------------------------------------------------------------


def _words(text: str) -> Words | Nothing | None:
    plain = _TEXT.sub(r"\1", text)
    if "\\" in plain or any(c in plain for c in "=^_<>"):
        return None
    if not _TEXT.fullmatch(text) and not re.search(r"[A-Za-z]{3}", plain):
        return None
    if re.search(r"[+*/]", plain) or FUNCTIONS.search(plain):
        return None
    words = letters(plain)
    return Words(words) if words else Nothing()


def is_no_number(text: str) -> bool:
    """Whether an expression holds a variable, dots, or digits side by side; e and i are no variables.

    math-verify takes `2ab`, `1 2` and `5 \\ldots` for numbers.
    """
    plain = FUNCTIONS.sub("", re.sub(r"\\[A-Za-z]+", " ", text))
    return _ODD.search(text) is not None or re.search(r"[A-DF-HJ-Za-df-hj-z]", plain) is not None


def letters(text: str) -> str:
    """The letters and digits of a text, in small letters, with single spaces between its words."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()
