#!/usr/bin/env python3
"""Find the perfect hash of the known header names and print the slot table of h1_names.c.

Run it after a change of PP_H1_NAMES in ppserver/native/proto/h1_names.h and paste the result.
"""

import itertools
import pathlib
import re

HEADER = pathlib.Path(__file__).parents[1] / "ppserver/native/proto/h1_names.h"
SLOTS = 256


def slot(name: bytes, a: int, b: int, c: int) -> int:
    """The same arithmetic as slot_of() in h1_names.c."""
    return (len(name) * a + name[0] * b + name[-2] * c + name[-1]) % SLOTS


def main() -> None:
    names = re.findall(r'X\(([A-Z_]+), "([^"]+)"\)', HEADER.read_text())
    for a, b, c in itertools.product(range(1, 64), repeat=3):
        slots = {slot(text.encode(), a, b, c): ident for ident, text in names}
        if len(slots) == len(names):
            break
    else:
        raise SystemExit("no perfect hash found: widen the search")
    print(f"#define SLOT_A {a}\n#define SLOT_B {b}\n#define SLOT_C {c}\n")
    print(f"static const uint8_t SLOTS[{SLOTS}] = {{")
    for number in sorted(slots):
        print(f"    [{number}] = PP_H1_NAME_{slots[number]},")
    print("};")


if __name__ == "__main__":
    main()
