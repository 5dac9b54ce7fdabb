"""Words in many scripts for the synthetic dump, each made from a number so that no two are alike.

A script has units, syllables or signs, so chosen that a string of them can be taken apart in only
one way. A core is a fixed number of units: the digits of a number in the base of their count. Two
numbers never make the same core, and no unit belongs to two scripts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import NamedTuple


def syllables(first: str, then: Iterable[str], last: Iterable[str] = ("",)) -> list[str]:
    """All of one sign each, where the last may be missing.

    Nothing of `then` is in `first`. A sign that may both begin and end a syllable begins the next
    one exactly if something of `then` follows.
    """
    ends = list(last)
    return [a + b + c for a in first for b in then for c in ends]


def signs(first: int, last: int) -> list[str]:
    return [chr(code) for code in range(first, last + 1)]


class Writing(NamedTuple):
    weight: float  # how many of a thousand articles have such a title
    length: int  # of a core, in units
    cased: bool  # two words with capitals
    units: list[str]


# All are in Unicode's normal form C, as titles are in MediaWiki.
WRITINGS = [
    Writing(640, 3, True, syllables("bcdfghklmnprstvwz", "aeiou", ["", *"nrslm"])),
    Writing(
        100,
        3,
        True,
        syllables(
            "bcdfghklmnprstvwzčšžłñçğşřťďňðþ",
            "áéíóúàèìòùâêîôûäëïöüåæøœãõāēīōūăęąűơưộếạ",
            ["", *"nrslm"],
        ),
    ),
    Writing(60, 3, True, syllables("бвгджзклмнпрстфхцчшщђћљ", "аеиоуыэюяёіїє", ["", *"нрсйв"])),
    Writing(20, 3, True, syllables("βγδζθκλμνξπρστφχψ", "αεηιοωάέήίόύώϊ", ["", *"νρλ"])),
    Writing(5, 4, True, syllables("բգդզթժլխծկհձղճմնշչպջռստրցփք", "աեէըիո", ["", *"նր"])),
    Writing(5, 4, False, syllables("ბგდვზთკლმნპჟრსტფქღყშჩცძწჭხჯჰ", "აეიოუ", ["", *"ნრს"])),
    Writing(12, 7, False, list("אבגדהוזחטיכלמנסעפצקרשת")),
    Writing(30, 6, False, list("ابتثجحخدذرزسشصضطظعغفقكلمنهوي")),
    Writing(15, 4, False, syllables("कखगघचछजझटठडढतथदधनपफबभमयरलवशषसह", ["", *"ािीुूेैोौ"])),
    Writing(5, 4, False, syllables("কখগঘচছজঝটঠডঢতথদধনপফবভমযরলশষসহ", ["", *"ািীুূে"])),
    Writing(5, 5, False, syllables("கஙசஞடணதநபமயரலவழளறன", ["", *"ாிீுூேை"])),
    Writing(8, 5, False, syllables("กขคงจชซญดตถทนบปผฝพฟมยรลวสหอ", ["", *"าีุู"])),
    Writing(3, 4, False, signs(0x1200, 0x1246) + signs(0x12A8, 0x12AD) + signs(0x1308, 0x130F)),
    Writing(
        20, 5, False, list("あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめも")
    ),
    Writing(
        15, 5, False, list("アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモ")
    ),
    Writing(20, 3, False, signs(0xAC00, 0xD7A3)),
    Writing(45, 3, False, signs(0x4E00, 0x9FA5)),
    Writing(2, 3, False, signs(0x20000, 0x2A6D6)),
    Writing(2, 5, False, signs(0x1F400, 0x1F4FF)),
]


class Script:
    """A writing, its cores shuffled: the same number makes another core with another `rng`."""

    def __init__(self, writing: Writing, rng: random.Random) -> None:
        self.cased = writing.cased
        self.length = writing.length
        self.units = rng.sample(writing.units, len(writing.units))
        self.count = len(self.units) ** self.length
        self._shift = rng.randrange(self.count)
        # Steps of the golden ratio lead once through all numbers, each far from the last one.
        self._step = int(self.count * 0.6180339887498949)
        while math.gcd(self._step, self.count) != 1:
            self._step += 1

    def core(self, number: int) -> str:
        rest = (number * self._step + self._shift) % self.count
        units = self.units
        base = len(units)
        parts = []
        for _ in range(self.length):
            rest, digit = divmod(rest, base)
            parts.append(units[digit])
        if not self.cased:
            return "".join(parts)
        # The words are told apart by a space that is no part of the core.
        if digit & 1:
            return f"{''.join(parts[:2]).capitalize()} {''.join(parts[2:]).capitalize()}"
        return f"{parts[0].capitalize()} {''.join(parts[1:]).capitalize()}"
