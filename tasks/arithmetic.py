"""Exact values of arithmetic that is written out: sums, products, quotients, powers and factorials of numbers.

A recursive reader of the small grammar that final answers are made of, in LaTeX or plain. It computes nothing that it
has not bounded first: a value of more than DIGITS digits is `Huge`, whatever the shape that it is written in.

Source: ours.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

DIGITS = 4000
"""Digits of the largest numerator or denominator that is computed."""
DEEPEST = 20
LARGEST_FACTORIAL = 1500

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+(?![0-9.]))?)"
    r"|\\(?:frac|times|cdot|binom)(?![A-Za-z])"
    r"|\*\*|[-+*/^!(){}])"
)
_BITS_A_DIGIT = math.log2(10)


class Huge(Exception):
    """The text is a number, but one of more digits than are computed."""


class _NotArithmeticError(Exception):
    """The text is something else than arithmetic of numbers."""


def exact(text: str) -> Fraction | None:
    """The value of the text; None where it is not arithmetic of numbers. Raises Huge where it is beyond DIGITS.

    >>> [str(exact(text)) for text in ("(2^{3}+1)/3", "4.5 \\\\times 10^{-2}", "10^{2^{1}}", "x+1")]
    ['3', '9/200', '100', 'None']
    """
    try:
        reader = _Reader(_tokens(text))
        value = reader.sum(0)
        return value if reader.at_end() else None
    except (_NotArithmeticError, ZeroDivisionError):
        return None


def _tokens(text: str) -> list[str]:
    found, place, end = [], 0, len(text.rstrip())
    while place < end:
        token = _TOKEN.match(text, place)
        if token is None:
            raise _NotArithmeticError
        found.append(token[0].strip())
        place = token.end()
    return found


def bounded(value: Fraction) -> Fraction:
    """The value itself. Raises Huge where it has more than DIGITS digits."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > DIGITS * _BITS_A_DIGIT:
        raise Huge
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise _NotArithmeticError  # a root: for computer algebra
    n, size = exponent.numerator, max(abs(base.numerator), base.denominator)
    if size > 1 and (abs(n) > 4 * DIGITS or abs(n) * math.log10(size) > DIGITS):
        raise Huge
    if base == 0 and n < 0:
        raise ZeroDivisionError
    return base**n if size > 1 else Fraction(base.numerator ** (abs(n) % 2 if base else min(n, 1)))


def _numeral(token: str) -> Fraction:
    mantissa, _, exponent = token.lower().partition("e")
    if len(mantissa) > DIGITS:
        raise Huge
    value = Fraction(mantissa.rstrip(".") or "0")
    if not exponent:
        return value
    if len(exponent) > len(str(DIGITS)) + 1 or abs(int(exponent)) > DIGITS:
        raise Huge
    return bounded(value * Fraction(10) ** int(exponent))


class _Reader:
    """The grammar: a sum of products of powers of atoms. `depth` counts the brackets around the place."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.place = tokens, 0

    def at_end(self) -> bool:
        return self.place == len(self.tokens)

    def seen(self) -> str:
        return "" if self.at_end() else self.tokens[self.place]

    def take(self, *wanted: str) -> str:
        token = self.seen()
        if token not in wanted:
            return ""
        self.place += 1
        return token

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise _NotArithmeticError

    def sum(self, depth: int) -> Fraction:
        if depth > DEEPEST:
            raise _NotArithmeticError
        negative = self.take("+", "-") == "-"
        value = self.product(depth) * (-1 if negative else 1)
        while operator := self.take("+", "-"):
            other = self.product(depth)
            value = bounded(value + other if operator == "+" else value - other)
        return value

    def product(self, depth: int) -> Fraction:
        value = self.power(depth)
        while True:
            if self.take("*", "\\times", "\\cdot"):
                value = bounded(value * self.signed(depth))
            elif self.take("/"):
                value = bounded(value / self.signed(depth))
            elif self.seen() == "(" or (self.seen() == "\\frac" and self.tokens[self.place - 1] in (")", "}")):
                value = bounded(value * self.power(depth))  # factors side by side; 2\frac{1}{3} is a mixed number
            else:
                return value

    def signed(self, depth: int) -> Fraction:
        return -self.power(depth) if self.take("-") else self.power(depth)

    def power(self, depth: int) -> Fraction:
        if depth > DEEPEST:
            raise _NotArithmeticError
        value = self.atom(depth)
        while self.take("!"):
            if value.denominator != 1 or value < 0:
                raise _NotArithmeticError
            if value > LARGEST_FACTORIAL:
                raise Huge
            value = Fraction(math.factorial(value.numerator))
        if self.take("^", "**"):
            negative = self.take("-")
            exponent = self.power(depth + 1)
            value = bounded(_power(value, -exponent if negative else exponent))
        return value

    def group(self, depth: int, opening: str = "{", closing: str = "}") -> Fraction:
        self.need(opening)
        value = self.sum(depth + 1)
        self.need(closing)
        return value

    def atom(self, depth: int) -> Fraction:
        token = self.seen()
        if token == "(":
            return self.group(depth, "(", ")")
        if token == "{":
            return self.group(depth)
        if self.take("\\frac"):
            above = self.group(depth)
            return bounded(above / self.group(depth))
        if self.take("\\binom"):
            return self.chosen(self.group(depth), self.group(depth))
        if not token[:1].isdigit() and token[:1] != ".":
            raise _NotArithmeticError
        self.place += 1
        return _numeral(token)

    def chosen(self, above: Fraction, below: Fraction) -> Fraction:
        if above.denominator != 1 or below.denominator != 1 or not 0 <= below <= above:
            raise _NotArithmeticError
        if above > LARGEST_FACTORIAL:
            raise Huge
        return Fraction(math.comb(above.numerator, below.numerator))
