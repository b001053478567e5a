"""Words after a number: scales that are part of it, and units that are told from one another. Source: ours."""

from __future__ import annotations

import re
import string
from fractions import Fraction

_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_COUNTS = {"dozen": 12, "dozens": 12, "score": 20, "half": Fraction(1, 2), "halves": Fraction(1, 2)}
UNITS = {
    name: names[0]
    for names in (
        ("dollars", "dollar", "usd"),
        ("cents", "cent"),
        ("euros", "euro"),
        ("degrees", "degree", "deg"),
        ("radians", "radian", "rad"),
        ("seconds", "second", "sec", "s"),
        ("minutes", "minute", "min"),
        ("hours", "hour", "hr", "h"),
        ("days", "day"),
        ("weeks", "week"),
        ("months", "month"),
        ("years", "year"),
        ("millimeters", "millimetres", "mm"),
        ("centimeters", "centimeter", "centimetres", "centimetre", "cm"),
        ("meters", "meter", "metres", "metre", "m"),
        ("kilometers", "kilometer", "kilometres", "kilometre", "km"),
        ("inches", "inch", "in"),
        ("feet", "foot", "ft"),
        ("miles", "mile", "mi"),
        ("grams", "gram", "g"),
        ("kilograms", "kilogram", "kg"),
        ("pounds", "pound", "lb", "lbs"),
    )
    for name in names
}
"""Units that are told from one another: 5 cm are not 5 m. Other words after a number say nothing of its value."""
SYMBOLS = frozenset(
    {"N", "J", "W", "V", "A", "K", "C", "F", "L", "l", "Hz", "Pa", "eV", "ml", "mL", "kW", "MeV", "AU", "pc"}
)
"""Further symbols of units that are known after a number."""
CURRENCIES = {"£": "pounds", "$": "dollars", "€": "euros"}
"""The units that currency signs stand for."""
ORDINALS = re.compile("st|nd|rd|th")
"""What makes a number an ordinal: the 5th is 5."""


def scale_of(word: str) -> int | Fraction | None:
    """What a word after a number multiplies it by; None where it does not.

    >>> [scale_of(word) for word in ("Million", "dozen", "apples")]
    [1000000, 12, None]
    """
    word = word.lower()
    return 10 ** _SCALES[word] if word in _SCALES else _COUNTS.get(word)


def is_word(letters: str) -> bool:
    """Whether letters can be a word: three or more that are no run of the alphabet, as variables often are.

    >>> [is_word(letters) for letters in ("men", "xyz", "ab")]
    [True, False, False]
    """
    return len(letters) > 2 and letters.lower() not in string.ascii_lowercase
