"""Sandbox of a decoder process on Linux: resource limits, and a seccomp filter with the allowed system calls.

The seccomp filter (mode filter) supports x86-64 and aarch64. All other system calls fail with EPERM, so the process
cannot open files, connect, start processes or send signals. The resource limits apply on all architectures.
"""

from __future__ import annotations

import ctypes
import platform
import resource
import struct
import sys

_ALLOWED = {
    # The same calls for both: read, write, close, fstat, lseek, mmap, mprotect, munmap, brk, mremap, madvise; sendto,
    # recvfrom; rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack; exit, exit_group; futex, sched_yield,
    # sched_getaffinity, set_robust_list, rseq, membarrier, getcpu; getpid, gettid, getrandom, getrusage, times;
    # gettimeofday, clock_gettime, clock_getres, restart_syscall; getrlimit, setrlimit.
    "x86_64": (
        *(0, 1, 3, 5, 8, 9, 10, 11, 12, 25, 28, 44, 45, 13, 14, 15, 131, 60, 231, 202, 24, 204, 273, 334, 324, 309),
        *(39, 186, 318, 98, 100, 96, 228, 229, 219, 97, 160),
    ),
    "aarch64": (
        *(63, 64, 57, 80, 62, 222, 226, 215, 214, 216, 233, 206, 207, 134, 135, 139, 132, 93, 94, 98, 124, 123, 99),
        *(293, 283, 168, 172, 178, 278, 165, 153, 169, 113, 114, 128, 163, 164),
    ),
}
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; low half of an argument
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # linux/seccomp.h; EPERM is 1
_NO_NEW_PRIVILEGES, _SECCOMP, _MODE_FILTER, _PARENT_DEATH_SIGNAL = 38, 22, 2, 1  # linux/prctl.h

DESCRIPTORS = 8
"""Limit on open files: the standard streams (/dev/null), and the socket to the host."""


def limit_resources(address_space: int) -> tuple[str, ...]:
    """Set the permanent resource limits (memory, core dumps, files). Returns the names of the limited resources.

    address_space: bytes in addition to those mapped now.
    """
    set_address_space(address_space, for_good=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    return "address space", "CPU time", "open files", "file size", "core dumps"


_mapped = 0


def set_address_space(beyond: int, *, for_good: bool = False) -> None:
    """Limit the address space to `beyond` bytes more than were mapped at the first call of this function."""
    global _mapped
    if not _mapped:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
            _mapped = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = _mapped + beyond
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft if for_good else hard))


def set_cpu_time(seconds: int) -> None:
    """Limit further CPU time to `seconds` plus at most one; then the kernel kills the process (SIGXCPU)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def die_with_parent() -> None:
    """Make the kernel kill this process (SIGKILL) when its parent ends."""
    import signal

    _libc().prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def refuse_system_calls() -> tuple[str, ...]:
    """Install the seccomp filter in this process. Returns what it blocks; empty if kernel or machine lack support."""
    machine = platform.machine()
    if machine not in _ALLOWED or sys.byteorder != "little" or struct.calcsize("P") != 8:
        return ()
    allowed = _ALLOWED[machine]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, len(allowed) + 3, 0, 0x40000000),  # x32 system calls
        *((_EQUAL, len(allowed) + 3 - index, 0, number) for index, number in enumerate(allowed)),
        (_EQUAL, 0, 1, _PRLIMIT[machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 1, 0, 0),  # pid 0: its own limits only
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    code = ctypes.create_string_buffer(packed, len(packed))

    class Program(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("code", ctypes.c_void_p))

    given = Program(len(program), ctypes.addressof(code))
    libc = _libc()
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _MODE_FILTER, ctypes.byref(given), 0, 0):
        return ()
    return "network", "file system", "other processes"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def give_back_memory() -> None:
    """Return freed memory to the system, if the C library supports it."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)
