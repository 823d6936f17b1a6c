"""What the numbers were taken on, and how quiet it was."""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path

LARGEST_ORDER = 10
"""Of a free block of x86-64's memory, as a power of two of pages."""


def describe(directory: Path) -> list[tuple[str, str]]:
    """The machine, without names or paths of its own."""
    return [
        ("CPU", f"{_cpu_model()}, {cores()} cores" + (" (virtual machine)" if _is_virtual() else "")),
        ("Memory", f"{memory('MemTotal') / 2**30:.1f} GiB, transparent huge pages: {_huge_pages()}"),
        ("Free page reporting", _page_reporting()),
        ("Kernel", f"{platform.system()} {platform.release()}"),
        ("Filesystem", _filesystem(directory)),
        ("Python", platform.python_version()),
    ]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory(field: str) -> int:
    """A field of /proc/meminfo in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _page_reporting() -> str:
    """Whether the host is told of free memory, and takes its time to give it back."""
    order = Path("/sys/module/page_reporting/parameters/page_reporting_order")
    if not order.exists():
        return "none"
    value = int(order.read_text())
    return "off" if value > LARGEST_ORDER else f"**on**, blocks of 2^{value} pages and more: see README.md"


def _cpu_field(name: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.split("\t")[0].strip() == name:
            return line.split(":", 1)[1].strip()
    return ""


def _cpu_model() -> str:
    return _cpu_field("model name") or platform.machine()


def _is_virtual() -> bool:
    return "hypervisor" in _cpu_field("flags").split()


def _huge_pages() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "unknown"
    return text.split("[")[1].split("]")[0]


def _filesystem(directory: Path) -> str:
    """The type of the file system that holds the directory."""
    best, kind = Path("/"), "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, mount_kind, *_ = line.split()
        if directory.resolve().is_relative_to(mount) and len(Path(mount).parts) >= len(best.parts):
            best, kind = Path(mount), mount_kind
    return kind


class Quiet:
    """Measures what else the machine did meanwhile."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._busy, self._steal = _busy_and_steal()
        self._own = _own_seconds()

    def report(self) -> tuple[float, float]:
        """CPU-seconds per second of all other processes and the kernel's own threads, and of the host's other guests
        (steal), both as shares of this machine's cores."""
        seconds = (time.monotonic() - self._started) * (os.cpu_count() or 1)
        busy, steal = _busy_and_steal()
        others = busy - self._busy - (_own_seconds() - self._own)
        return max(0.0, others / seconds), (steal - self._steal) / seconds


def _busy_and_steal() -> tuple[float, float]:
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = (
        int(word) / os.sysconf("SC_CLK_TCK") for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return user + nice + system + irq + softirq, steal


def _own_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)
