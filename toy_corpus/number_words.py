"""Numbers in words, by num2words: German (``dreiundzwanzig``) and British English, as the corpus writes them."""

from __future__ import annotations

from num2words import num2words

__all__ = ["english_number", "english_year", "german_number", "german_year"]

_LAST_YEAR_READ_IN_PAIRS = 1999


def german_number(value: int) -> str:
    """Return a number of 1 to 9,999 as one German word; a final one is written ``eins``."""
    return str(num2words(value, lang="de"))


def english_number(value: int) -> str:
    """Return a number of 1 to 9,999 in words, without the comma after thousands."""
    return str(num2words(value, lang="en_GB")).replace(",", "")


def german_year(year: int) -> str:
    """Return a year in words: ``neunzehnhundertsiebenundachtzig``, ``zweitausendzwölf``."""
    return str(num2words(year, lang="de", to="year"))


def english_year(year: int) -> str:
    """Return a year in words: ``nineteen eighty-seven``, ``nineteen oh five``, ``two thousand and twelve``."""
    if year > _LAST_YEAR_READ_IN_PAIRS:
        return english_number(year)
    return str(num2words(year, lang="en_GB", to="year")).replace("oh-", "oh ")
