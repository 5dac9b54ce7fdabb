"""House rules that a machine can check: sizes, layers and their picture, banned calls, paths.

    python tests/tidy.py [FOLDER]

Prints one line a finding and exits with 1 when there are any. A line of C or Python may be
excused from the checks of its text with a comment that says why: `tidy: allow <rule> (reason)`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import floors
import layers
import ranks
from csource import includes, without_comments

LINES_MAX = 800
COLUMNS_MAX = 100
LAYERS = ("base", "proto", "net", "bridge")
NATIVE = PurePosixPath("ppserver/native")
CODE = {".c", ".h", ".py", ".pyi"}
TEXT = CODE | {".md", ".toml", ".sh", ".build", ".options", ".cfg", ".txt", ".yml", ".yaml", ""}

BANNED_C = {
    "strcpy": "bounded copies only",
    "strncpy": "bounded copies only; this one forgets the terminator",
    "strcat": "bounded copies only",
    "strncat": "bounded copies only",
    "sprintf": "use snprintf",
    "vsprintf": "use vsnprintf",
    "gets": "never",
    "alloca": "the stack has no limit check",
    "strtok": "keeps state between calls",
    "atoi": "cannot report an error",
    "atol": "cannot report an error",
    "setjmp": "skips clean-up",
    "longjmp": "skips clean-up",
}
ALLOCATORS = "malloc calloc realloc free strdup strndup posix_memalign"
SYSTEM_CALLS = (
    "accept accept4 bind clock_gettime close connect dup dup2 dup3 epoll_create1 epoll_ctl "
    "epoll_pwait epoll_wait eventfd execve fcntl fork fstat getpeername getsockname getsockopt "
    "gettimeofday ioctl kill listen lseek mmap munmap nanosleep open openat pipe pipe2 poll "
    "pread pselect pwrite read readv recv recvfrom recvmsg select send sendfile sendmsg sendto "
    "setsockopt shutdown sleep socket socketpair splice stat time timerfd_create "
    "timerfd_settime unlink usleep write writev"
)
SYSTEM_HEADERS = (
    "arpa/inet.h fcntl.h netdb.h netinet/in.h netinet/tcp.h poll.h pthread.h signal.h "
    "sys/epoll.h sys/eventfd.h sys/ioctl.h sys/mman.h sys/random.h sys/select.h sys/sendfile.h "
    "sys/socket.h sys/stat.h sys/time.h sys/timerfd.h sys/uio.h sys/un.h sys/wait.h time.h "
    "unistd.h"
)
# What net/ asks for beside them; all of it by one header, so that tests can link another kernel.
NET_CALLS = (
    "fallocate ftruncate getpid memfd_create mkostemp mprotect preadv2 "
    r"pthread_\w+ sem_\w+ syscall"
)
NET_HEADERS = "linux/\\S+ semaphore.h sys/\\S+"
NET_SYSTEM = NATIVE / "net/sys.h"
MACHINE_PATH = re.compile(r"(?<![\w.)}])/(?:home|root|Users|work|mnt)/[\w.-]+")
REGISTRY_HOST = re.compile(r"\b(?:pypi\.org|files\.pythonhosted\.org|deb\.debian\.org)\b")
LEFT_OPEN = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b")

Finding = tuple[int, str, str]  # line, rule, what to say


def calls(names: Iterable[str]) -> re.Pattern[str]:
    # A call: not a member (x->read(...)), not a part of a longer name.
    return re.compile(r"(?<![\w.>])(" + "|".join(names) + r")\s*\(")


BANNED = calls(BANNED_C)
ALLOCATION = calls(ALLOCATORS.split())
SYSTEM_CALL = calls(SYSTEM_CALLS.split())
NET_CALL = calls([*SYSTEM_CALLS.split(), *NET_CALLS.split()])
NET_INCLUDE = re.compile("|".join(NET_HEADERS.split()))
SYSTEM_INCLUDES = frozenset(SYSTEM_HEADERS.split())


def check_includes(layer: str, source: str) -> Iterator[Finding]:
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    for number, kind, name in includes(source):
        if name in {"Python.h", "structmember.h"} and layer != "bridge":
            yield number, "layers", f"{name} outside bridge/"
        elif kind == '"':
            folder = name.split("/")[0]
            if "/" not in name or ".." in name:
                yield number, "layers", f'"{name}": include relative to ppserver/native'
            elif folder in LAYERS and folder not in allowed:
                yield number, "layers", f"{layer}/ may not use {folder}/"
        elif name in SYSTEM_INCLUDES and layer in {"base", "proto"}:
            yield number, "system", f"<{name}>: only net/ makes system calls"
        elif layer == "net" and (name in SYSTEM_INCLUDES or NET_INCLUDE.fullmatch(name)):
            yield number, "system", f"<{name}>: include net/sys.h"


def check_c(path: PurePosixPath, source: str) -> Iterator[Finding]:
    plain = without_comments(source)
    lines = plain.splitlines()
    for number, line in enumerate(lines, 1):
        for match in BANNED.finditer(line):
            yield number, "banned", f"{match[1]}(): {BANNED_C[match[1]]}"
    if not path.is_relative_to(NATIVE):
        return
    layer = path.relative_to(NATIVE).parts[0]
    if layer not in LAYERS:
        return
    yield from () if path == NET_SYSTEM else check_includes(layer, source)
    in_mem = path == NATIVE / "base/mem.c"
    for number, line in enumerate(lines, 1):
        if not in_mem:
            for match in ALLOCATION.finditer(line):
                yield number, "memory", f"{match[1]}(): only base/mem.c allocates"
        if layer != "net":
            for match in SYSTEM_CALL.finditer(line):
                yield number, "system", f"{match[1]}(): only net/ makes system calls"
        elif path != NET_SYSTEM:
            for match in NET_CALL.finditer(line):
                yield number, "system", f"{match[1]}(): by pp_sys_{match[1]} of net/sys.h"


def check_magic(path: PurePosixPath, source: str) -> Iterator[Finding]:
    """A header has a guard named after its path."""
    if path.suffix != ".h" or not path.is_relative_to(NATIVE):
        return
    inside = path.relative_to(NATIVE)
    guard = "PP_" + re.sub(r"[^A-Z0-9]", "_", inside.as_posix().upper())
    if f"#ifndef {guard}\n#define {guard}\n" not in source:
        yield 1, "guard", f"the include guard is {guard}"


def check_text(path: PurePosixPath, source: str) -> Iterator[Finding]:
    lines = source.splitlines()
    generated = any("generated by" in line for line in lines[:5])
    if path.suffix in CODE and len(lines) > LINES_MAX and not generated:
        yield 1, "size", f"{len(lines)} lines; split it by {LINES_MAX}"
    for number, line in enumerate(lines, 1):
        if path.suffix in CODE and len(line) > COLUMNS_MAX:
            yield number, "size", f"{len(line)} columns; {COLUMNS_MAX} at most"
        if line != line.rstrip():
            yield number, "space", "white space at the end"
        for match in MACHINE_PATH.finditer(line):
            yield number, "paths", f"{match[0]}: a path of one machine"
        for match in REGISTRY_HOST.finditer(line):
            yield number, "paths", f"{match[0]}: a registry by its host"
        if LEFT_OPEN.search(line) and not re.search(r"#\d+", line):
            yield number, "todo", "what is left open names an issue"


def check_file(path: PurePosixPath, source: str) -> Iterator[Finding]:
    found = [*check_text(path, source)]
    if path.suffix in {".c", ".h"}:
        found += check_c(path, source)
        found += check_magic(path, source)
    lines = source.splitlines()
    for number, rule, message in sorted(found):
        if f"tidy: allow {rule}" not in lines[number - 1 : number][0]:
            yield number, rule, message


def files_of(root: Path) -> list[PurePosixPath]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [PurePosixPath(name) for name in sorted(listed.split("\0")) if name]


def check_tree(root: Path) -> Iterator[str]:
    package: dict[str, str] = {}
    native: dict[str, str] = {}
    for path in files_of(root):
        real = root / path
        if path.suffix not in TEXT or not real.is_file():
            continue
        if "seeds" in path.parts or "cases" in path.parts:
            continue
        try:
            source = real.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            yield f"{path}:1: text: not UTF-8"
            continue
        if source and not source.endswith("\n"):
            yield f"{path}:1: space: no newline at the end"
        if path.suffix in {".py", ".pyi"} and path.parts[0] == "ppserver":
            package[path.as_posix()] = source
        if path.suffix in {".c", ".h"} and path.is_relative_to(NATIVE):
            native[path.as_posix()] = source
        for number, rule, message in check_file(path, source) if source else ():
            yield f"{path}:{number}: {rule}: {message}"
    yield from layers.check(package)
    yield from ranks.check(native)
    if (root / floors.PICTURE).parent.is_dir():
        yield from floors.check(root)


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    findings = list(check_tree(root))
    for finding in findings:
        print(finding)
    print(f"tidy: {len(findings)} findings" if findings else "tidy: nothing to say")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
