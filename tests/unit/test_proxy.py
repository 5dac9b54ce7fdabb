"""Whom to believe: as it is read, and as the core takes it."""

from __future__ import annotations

import pytest

from ppserver._native import Core
from ppserver.config.proxy import NETWORKS_MAX, TrustedProxies
from ppserver.errors import ConfigError


def test_packed() -> None:
    everybody, unix, networks = TrustedProxies(("127.0.0.1", "10.0.0.0/8", "unix")).packed()
    assert (everybody, unix) == (False, True)
    mapped = b"\0" * 10 + b"\xff\xff"
    assert networks == mapped + b"\x7f\0\0\1\x80" + mapped + b"\x0a\0\0\0\x68"
    assert TrustedProxies(("*", "fd00::/8")).packed() == (
        True,
        False,
        b"\xfd" + bytes(15) + b"\x08",
    )


@pytest.mark.parametrize("entries", [["10.0.0.1/8"], ["proxy"], ["10.0.0.1"] * (NETWORKS_MAX + 1)])
def test_wrong_entries(entries: list[str]) -> None:
    with pytest.raises(ConfigError, match="forwarded_allow_ips"):
        TrustedProxies(entries)


@pytest.mark.parametrize(
    "wrong",
    [
        (False, False),
        (False, False, b"x"),
        (False, False, bytes(16) + b"\x81"),
        (False, False, bytes(17 * (NETWORKS_MAX + 1))),
        [False, False, b""],
        (False, False, "text"),
    ],
)
def test_the_core_checks_what_it_gets(wrong: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Core(trusted_proxies=wrong)  # type: ignore[arg-type]


def test_the_core_takes_as_many_networks_as_the_setting() -> None:
    entries = [f"10.{n // 256}.{n % 256}.0/24" for n in range(NETWORKS_MAX)]
    core = Core(trusted_proxies=TrustedProxies(entries).packed())
    core.close()
