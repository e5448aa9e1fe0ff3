"""Numbers in words: German with its inverted tens and units (``dreiundzwanzig``), English without."""

from __future__ import annotations

_GERMAN = [
    "null",
    "ein",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
]
_GERMAN_TENS = ["", "", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
_ENGLISH = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_ENGLISH_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def german_number(value: int) -> str:
    """A number of 1 to 9,999 as one German word; a final one is written ``eins``."""
    word = _german_stem(value)
    return word + "s" if word.endswith("ein") else word


def _german_stem(value: int) -> str:
    if value >= 1000:
        return _german_stem(value // 1000) + "tausend" + (_german_stem(value % 1000) if value % 1000 else "")
    if value >= 100:
        return _german_stem(value // 100) + "hundert" + (_german_stem(value % 100) if value % 100 else "")
    if value < 20:
        return _GERMAN[value]
    tens, units = divmod(value, 10)
    return (_GERMAN[units] + "und" if units else "") + _GERMAN_TENS[tens]


def english_number(value: int) -> str:
    """A number of 1 to 9,999 in British English words."""
    if value >= 1000:
        rest = value % 1000
        link = " and " if 0 < rest < 100 else " "
        return english_number(value // 1000) + " thousand" + (link + english_number(rest) if rest else "")
    if value >= 100:
        rest = value % 100
        return english_number(value // 100) + " hundred" + (" and " + english_number(rest) if rest else "")
    if value < 20:
        return _ENGLISH[value]
    tens, units = divmod(value, 10)
    return _ENGLISH_TENS[tens] + ("-" + _ENGLISH[units] if units else "")


def german_year(year: int) -> str:
    """A year in words: ``neunzehnhundertsiebenundachtzig``, ``zweitausendzwölf``."""
    if year >= 2000:
        return german_number(year)
    century, rest = divmod(year, 100)
    return german_number(century) + "hundert" + (german_number(rest) if rest else "")


def english_year(year: int) -> str:
    """A year in words: ``nineteen eighty-seven``, ``two thousand and twelve``."""
    if year >= 2000:
        return english_number(year)
    century, rest = divmod(year, 100)
    if not rest:
        return english_number(century) + " hundred"
    return english_number(century) + " " + ("oh " if rest < 10 else "") + english_number(rest)
