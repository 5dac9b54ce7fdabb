"""Four threads read frozen data of every kind at once, and never get a wrong answer."""

from __future__ import annotations

import os

import pytest
import serving
from snippets import run_python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="freezing is ppserver's own"),
]

HAMMER = """
import collections, dataclasses, enum, random, sys, threading, time, warnings
import ppserver

seconds, kinds = float(sys.argv[1]), sys.argv[2].split()
N = 5000

@dataclasses.dataclass(frozen=True)
class Record:
    number: int
    name: str

class Slots:
    __slots__ = ("number", "next")

class Node:
    factor = 3
    def __init__(self, number):
        self.number = number
        self.text = f"node {number}"
        self.children = [number, str(number)]
    @property
    def tripled(self):
        return self.number * self.factor
    def __eq__(self, other):
        return self.number == other.number
    def __hash__(self):
        return hash(self.number)

class Color(enum.Enum):
    RED = 1
    BLUE = 2

Point = collections.namedtuple("Point", "x y")

def text(number):
    return f"text {number}"

def check_dict(rng):
    number = rng.randrange(N)
    assert data["dict"][text(number)] == number
    assert data["by number"][number + 1000] == [number]
    assert text(-1 - number) not in data["dict"]

def check_whole_dict(rng):
    assert sum(data["dict"].values()) == N * (N - 1) // 2
    assert all(key == text(number) for key, number in data["dict"].items())

def check_list(rng):
    number = rng.randrange(N)
    assert data["list"][number] == [number, text(number)]
    assert data["list"][number:number + 3][0][1] == text(number)
    assert [text(number)] not in data["list"][:10]

def check_tuple(rng):
    number = rng.randrange(N)
    one, two = data["tuple"][number]
    assert (one, two) == (number, text(number)) and data["points"][number].y == -number

def check_bytes(rng):
    number = rng.randrange(N)
    assert data["bytes"][number] == b"%d" % number * 3
    assert data["bytes"][number][:1] + b"x" != b"x"

def check_str(rng):
    number = rng.randrange(N)
    one = data["str"][number]
    assert one == text(number) and hash(one) == hash(text(number)) and one.upper().lower() == one
    assert one + "!" == f"{one}!" and one in data["names"]

def check_int(rng):
    number = rng.randrange(N)
    assert data["int"][number] + 1 == number * 10**12 + 1
    assert data["float"][number] * 2 == number

def check_objects(rng):
    number = rng.randrange(N)
    node = data["nodes"][number]
    assert node.tripled == 3 * number and node.text == f"node {number}"
    assert node.children[1] == str(number) and Node(number) in data["node set"]
    assert data["records"][number] == Record(number, text(number))
    assert data["slots"][number].number == number and isinstance(node, Node)
    assert data["colors"][number] is Color.RED and Color["BLUE"].value == 2

def check_set(rng):
    number = rng.randrange(N)
    assert number in data["set"] and -1 - number not in data["set"]
    assert data["frozenset"] >= {number, text(number)}

def check_deque(rng):
    number = rng.randrange(100)
    assert data["deque"][number] == [number] and len(data["counter"]) == 100

data = {
    "dict": {text(number): number for number in range(N)},
    "by number": {number + 1000: [number] for number in range(N)},
    "list": [[number, text(number)] for number in range(N)],
    "tuple": tuple((number, text(number)) for number in range(N)),
    "points": [Point(number, -number) for number in range(N)],
    "bytes": [b"%d" % number * 3 for number in range(N)],
    "str": [text(number) for number in range(N)],
    "names": {text(number) for number in range(N)},
    "int": [number * 10**12 for number in range(N)],
    "float": [number / 2 for number in range(N)],
    "nodes": [Node(number) for number in range(N)],
    "node set": frozenset(Node(number) for number in range(N)),
    "records": [Record(number, text(number)) for number in range(N)],
    "slots": [Slots() for number in range(N)],
    "colors": [Color.RED] * N,
    "set": set(range(N)),
    "frozenset": frozenset([*range(N), *map(text, range(N))]),
    "deque": collections.deque([[number] for number in range(100)]),
    "counter": collections.Counter(map(text, range(100))),
}
for number, one in enumerate(data["slots"]):
    one.number, one.next = number, None
checks = [check_dict, check_list, check_tuple, check_bytes, check_str, check_int, check_objects,
          check_set, check_deque]
rare = [check_whole_dict]

if "numpy" in kinds:
    import numpy
    data["numbers"] = numpy.arange(N) * 2
    data["boxes"] = numpy.array([[number] for number in range(N)] + [None], dtype=object)
    data["structures"] = numpy.array(
        [(number, text(number)) for number in range(N)], dtype=[("number", "i8"), ("text", object)]
    )

    def check_numpy(rng):
        number = rng.randrange(N)
        assert data["numbers"].searchsorted(number * 2) == number
        assert data["numbers"][number] == 2 * number and data["boxes"][number] == [number]
        assert data["structures"][number]["text"] == text(number)

    def check_whole_numpy(rng):
        assert data["numbers"].sum() == N * (N - 1)
        assert (data["numbers"][::-1] // 2)[0] == N - 1
        assert len({one[0] for one in data["boxes"][:-1]}) == N

    checks.append(check_numpy)
    rare.append(check_whole_numpy)

if "datrie" in kinds:
    import datrie
    letters = str.maketrans("0123456789", "abcdefghij")
    data["trie"] = datrie.Trie("abcdefghij")
    data["base trie"] = datrie.BaseTrie("abcdefghij")
    for number in range(N):
        word = f"{number:06d}".translate(letters)
        data["trie"][word] = number + 10_000
        data["base trie"][word] = number

    def check_trie(rng):
        number = rng.randrange(N)
        word = f"{number:06d}".translate(letters)
        assert data["trie"][word] == number + 10_000 and data["base trie"][word] == number
        assert word + "a" not in data["trie"] and data["trie"].longest_prefix(word + "j") == word
        assert len(data["trie"].keys(word[:5])) == 10

    checks.append(check_trie)

if "pandas" in kinds:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas
    data["frame"] = pandas.DataFrame(
        {
            "number": range(N),
            "box": [[number] for number in range(N)],
            "name": list(map(text, range(N))),
        },
        index=list(map(text, range(N))),
    ).astype({"name": object})
    data["frame"].loc[text(1), "number"]

    def check_frame(rng):
        number = rng.randrange(N)
        frame = data["frame"]
        assert frame["number"].iloc[number] == number and frame.at[text(number), "box"] == [number]

    def check_whole_frame(rng):
        frame = data["frame"]
        number = rng.randrange(N)
        assert frame.loc[text(number), "name"] == text(number)
        assert frame["number"].sum() == N * (N - 1) // 2
        assert sum(box[0] for box in frame["box"]) == N * (N - 1) // 2
        assert len(frame[frame["number"] < number]) == number

    checks.append(check_frame)
    rare.append(check_whole_frame)

from ppserver import freezing
report = freezing.prepare(ppserver.Config("a:b"))
until = time.monotonic() + seconds
done = collections.Counter()
wrong = []
barrier = threading.Barrier(4)

def hammer(name):
    rng = random.Random(name)
    rounds = 0
    try:
        barrier.wait()
        while time.monotonic() < until:
            for check in checks:
                for _ in range(20):
                    check(rng)
            if rounds % 10 == 0:
                rng.choice(rare)(rng)
            rounds += 1
    except BaseException as error:
        import traceback
        wrong.append(traceback.format_exc())
    done[name] = rounds

threads = [threading.Thread(target=hammer, args=(name,)) for name in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not wrong, wrong[0]
assert all(done[name] > 0 for name in range(4)), done
gil = getattr(sys, "_is_gil_enabled", lambda: True)()
print(sum(done.values()) * len(checks) * 20, "reads,", "with" if gil else "without", "a GIL")
"""


@pytest.mark.timeout(300)
def test_reads_from_four_threads() -> None:
    kinds = [name for name in ("numpy", "datrie", "pandas") if serving.is_installed(name)]
    seconds = 60 if os.environ.get("TEST_MORE") else 2
    # Some packages switch the GIL back on; what is tested is how their data bears its absence.
    env = {"PYTHON_GIL": "0"} if serving.FREE_THREADED else {}
    out = run_python(HAMMER, str(seconds), " ".join(kinds), env=env, timeout=250)
    print(out, end="")
    if serving.FREE_THREADED:
        assert "without a GIL" in out


WHILE_READING = """
import sys, threading
import ppserver

chunks = [{number: [number, f"text {number}"] for number in range(500)} for _ in range(100)]
stop = threading.Event()
wrong = []

def read():
    try:
        kept = []
        while not stop.is_set():
            for chunk in chunks:
                for number in range(0, 500, 7):
                    one = chunk[number]
                    kept.append(one)
                    assert one[0] == number and one[1] == f"text {number}"
                chunk["added"] = [len(kept)]
                del kept[::2]
    except BaseException as error:
        wrong.append(error)

threads = [threading.Thread(target=read) for _ in range(3)]
for thread in threads:
    thread.start()
for chunk in chunks:
    ppserver.freeze(chunk)
stop.set()
for thread in threads:
    thread.join()
assert not wrong, wrong
if _native.freeze_support()[0] == "on":
    frozen = [one for chunk in chunks for one in (chunk, chunk[0], chunk[0][1])]
    assert all(map(ppserver.is_frozen, frozen))
print("done")
"""


def test_freezing_while_other_threads_read_and_write() -> None:
    """The application's own threads: the world is stopped for them, or there is a GIL."""
    env = {"PYTHON_GIL": "0"} if serving.FREE_THREADED else {}
    code = "from ppserver import _native\n" + WHILE_READING
    assert run_python(code, env=env).split() == ["done"]
