"""What a request head costs: this tree's parser beside llhttp, which httptools is made of.

Heads of 4, 14 and 40 fields, in nanoseconds of processor time (the parsers take turns, pinned to
one core), and in instructions, counted by callgrind. The parser is the one that meson builds for a
release; heads.c calls it. llhttp comes from the distribution's package; without it, only ours is
measured. picohttpparser has no package: Debian's h2o library has it inside, without a header.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import count, report
from .generators import MeasureError, pinned
from .peers import BUILD, HERE, ROOT, SetupError, build_release, call
from .run import commit, machine
from .workloads import BROWSER_HEADERS, Workload

OURS, THEIRS = "ppserver", "llhttp"
COUNTED = 500  # heads of the shorter of two runs under callgrind; the longer has three times that

FEW = ("User-Agent", "Accept", "Accept-Encoding")
PROXY_HEADERS = {
    "Sec-CH-UA": '"Chromium";v="143", "Not A(Brand";v="24"',
    "Sec-CH-UA-Mobile": "?0",
    "Sec-CH-UA-Platform": '"Linux"',
    "Sec-CH-UA-Platform-Version": '"6.18.0"',
    "Sec-CH-UA-Arch": '"x86"',
    "Sec-CH-UA-Bitness": '"64"',
    "Sec-CH-UA-Model": '""',
    "Sec-CH-UA-Full-Version-List": '"Chromium";v="143.0.7499.40", "Not A(Brand";v="24.0.0.0"',
    "Authorization": "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxNzI5In0.h0pQ9sV4mXo2c7yTq1bA3w",
    "Cache-Control": "no-cache",
    "Pragma": "no-cache",
    "If-None-Match": 'W/"5f3a-18d2c4e7b90"',
    "Connection": "keep-alive",
    "Via": "2 edge-17.example.net, 1.1 gateway.example.net",
    "Forwarded": "for=192.0.2.43;proto=https;host=www.example.org",
    "X-Forwarded-For": "192.0.2.43, 198.51.100.17",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "www.example.org",
    "X-Forwarded-Port": "443",
    "X-Real-IP": "192.0.2.43",
    "X-Request-ID": "5b9c1e0a-7d42-4c8e-9f36-2a1d0b7e4f58",
    "X-Correlation-ID": "c0ffee17-0b52-4a61-8f0d-93b1d7a2e640",
    "X-Envoy-Expected-Rq-Timeout-Ms": "15000",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "vendor=t61rcWkgMzE,other=00f067aa0ba902b7",
    "baggage": "user=1729,region=eu-central,release=2026-01-11",
}  # with the browser's and Host they make forty

NOTE = f"""\
Both check framing and the bytes of values, and say where each field is. In its time {OURS} also
checks Host (one, and its syntax), the form and every byte of the target, that no name ends with a
blank, Expect, and the limits of line, head and fields; it splits path and query, lower-cases names,
and knows the usual ones by number."""


def heads() -> dict[int, bytes]:
    """The heads by the number of their fields."""
    few = {name: BROWSER_HEADERS[name] for name in FEW}
    found = {}
    for headers in (few, BROWSER_HEADERS, BROWSER_HEADERS | PROXY_HEADERS):
        load = Workload("head", "a head", "", None, path="/shop/17?colour=red", headers=headers)
        found[len(headers) + 1] = load.request("www.example.org")
    return found


# ---- building ----


def compiler() -> str:
    return os.environ.get("CC", "cc")


def find_llhttp(folder: Path) -> list[str]:
    """What the compiler needs for llhttp, built in `folder` if need be; nothing if it is absent."""
    probe = [compiler(), "-include", "llhttp.h", "-fsyntax-only", "-x", "c", os.devnull]
    if subprocess.run(probe, capture_output=True).returncode == 0:
        return ["-DWITH_LLHTTP", "-lllhttp"]
    # Where a distribution has it for Node.js only, it is C that waits to be compiled: as its
    # libraries are, which suits it better than -O3.
    sources = sorted(Path("/usr/share/llhttp").glob("*.c"))
    if not sources:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    include = "-I/usr/share/include/llhttp"
    call(compiler(), "-O2", "-c", include, *sources, cwd=folder, log=folder / "log")
    return ["-DWITH_LLHTTP", include, *(str(folder / f"{one.stem}.o") for one in sources)]


def compile_heads(source: Path, objects: Path, more: Sequence[str] = ()) -> Path:
    """heads.c around the parser of the tree `source`, of which `objects` is a build."""
    own = source / "contrib" / "bench" / "heads.c"
    libraries = [objects / "ppserver" / "native" / f"libpp_{name}.a" for name in ("proto", "base")]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-flto", "-Wall", "-Wextra", "-Werror"]
    flags.append(f"-I{source / 'ppserver' / 'native'}")
    program = own if own.exists() else HERE / "heads.c"
    binary = objects / "heads"
    log = objects.parent / "log"
    call(compiler(), *flags, program, *libraries, *more, "-o", binary, cwd=objects, log=log)
    return binary


# ---- measuring ----


def run_heads(
    binary: Path,
    head: bytes,
    parsers: Sequence[str],
    rounds: int,
    times: int,
    before: Sequence[str] = (),
) -> list[list[str]]:
    """The words of the lines that the program prints."""
    line = [*before, str(binary), str(rounds), str(times), *parsers]
    done = subprocess.run(line, input=head, capture_output=True)
    if done.returncode != 0:
        raise MeasureError(done.stderr.decode(errors="replace").strip()[-400:])
    return [text.split() for text in done.stdout.decode().splitlines()]


def instructions(binary: Path, head: bytes, parser: str, times: int = COUNTED) -> float:
    """Per head: the difference of two runs."""
    found = []
    for number in (times, 3 * times):
        folder = binary.parent / "callgrind" / f"{parser}-{len(head)}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run_heads(binary, head, [parser], 1, number, count.callgrind(folder))
        found.append(count.instructions(folder))
    return (found[1] - found[0]) / (2 * times)


def row(head: bytes, parser: str, each_ns: list[float], counted: float | None) -> list[str]:
    middle, low, high = report.spread(each_ns)
    return [
        f"{len(head.splitlines()) - 2} fields, {len(head):,} bytes",
        parser,
        f"{middle:.0f}",
        f"{low:.0f}..{high:.0f}",
        f"{len(head) / middle:.2f}",
        "?" if counted is None else f"{counted:,.0f}",
    ]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m contrib.bench heads", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="(default: %(default)s)")
    parser.add_argument(
        "--times", type=int, default=50_000, help="a head in each round (default: %(default)s)"
    )
    parser.add_argument("--core", default="0", help="to run on (default: %(default)s)")
    args = parser.parse_args(arguments)
    objects = BUILD / "heads" / "build"
    libraries = [f"ppserver/native/libpp_{name}.a" for name in ("proto", "base")]
    try:
        build_release(ROOT, objects, *libraries, options=["-Dextension=false"])
        theirs = find_llhttp(BUILD / "heads" / "llhttp")
        binary = compile_heads(ROOT, objects, theirs)
        parsers = [OURS, THEIRS] if theirs else [OURS]
        rows, scans = [], ""
        for head in heads().values():
            place = pinned(args.core)
            first, *lines = run_heads(binary, head, parsers, args.rounds, args.times, place)
            scans = first[0]
            for name in parsers:
                each_ns = [int(ns) / args.times for parsed, ns in lines if parsed == name]
                counted = instructions(binary, head, name) if shutil.which("valgrind") else None
                rows.append(row(head, name, each_ns, counted))
    except (SetupError, MeasureError) as why:
        sys.exit(f"heads: {why}")
    here = machine()
    print(f"{here['cpu']}, {here['compiler']}, load average {here['load']:.2f}; commit {commit()};")
    print(f"scans: {scans}; median of {args.rounds} rounds of {args.times:,} heads\n")
    title = ["head", "parser", "ns", "min..max", "GB/s", "instructions"]
    print(report.table(title, rows))
    print("\n" + NOTE if theirs else "\nllhttp is not installed (libllhttp-dev or node-llhttp)")
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: instructions are not counted")
