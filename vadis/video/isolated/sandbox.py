"""What a process that decodes gives up before it sees a file: unlimited memory, writing, the network, other programs.

It is done by the system's limits (``setrlimit``) and a filter of system calls (Linux: seccomp).
"""

import ctypes
import errno
import os
import platform
import re
import resource
import signal
import struct
from contextlib import suppress
from pathlib import Path

from vadis.errors import VideoError
from vadis.video.metadata import more

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38  # Linux, include/uapi/linux/prctl.h
_FILTER_MODE = 2  # include/uapi/linux/seccomp.h, as the two return values below
_REFUSE, _ALLOW = 0x0005_0000, 0x7FFF_0000


def die_with_parent(parent: int) -> None:
    """Let the kernel end this process with its parent, whose process id is given; Linux only."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # which was gone already
        raise SystemExit(1)


def enter_sandbox(max_memory_mb: int) -> tuple[str, ...]:
    """Give up all rights that decoding does not need, for good; return in plain words what could not be given up here.

    ``max_memory_mb`` is of address space, in units of 2**20 bytes.
    """
    limits = {
        "memory is not limited": (resource.RLIMIT_AS, max_memory_mb << 20),
        "core dumps are written": (resource.RLIMIT_CORE, 0),
        "open files are not limited": (resource.RLIMIT_NOFILE, 32),  # the video, three pipes, what the C library reads
        "files can be written": (resource.RLIMIT_FSIZE, 0),
    }
    left = []
    for what, (number, value) in limits.items():
        _, most = resource.getrlimit(number)
        value = value if most == resource.RLIM_INFINITY else min(value, most)  # a tighter one stays
        try:
            resource.setrlimit(number, (value, value))
        except (OSError, ValueError):
            left.append(what)
    if not _filter_calls():
        left.append("the network, other programs and changes to files are not refused by the kernel")
    return tuple(left)


def has_used_much_memory() -> bool:
    """Return whether this process has ever held half of the memory that it may hold; False where that is unlimited."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(OSError):
        peak = re.search(r"VmPeak:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        return peak is not None and most != resource.RLIM_INFINITY and int(peak[1]) << 10 > most // 2
    return False


def memory_error(error: Exception) -> VideoError | None:
    """Return the refusal of a file for which memory ran out, None for others: absurd amounts that damage asks for."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    return too_much_memory(most >> 20) if isinstance(error, MemoryError) and has_used_much_memory() else None


def too_much_memory(limit_mb: int) -> VideoError:
    """Return the refusal of a video for which a process of ``limit_mb`` has no room."""
    message = f"to decode it takes more memory than the {limit_mb:,} MB that the limit allows"
    return VideoError("too_large", message, more("max_memory_mb"))


_REFUSED = (
    # the network
    "socket 41 198; socketpair 53 199; connect 42 203; bind 49 200; listen 50 201; accept 43 202; "
    "accept4 288 242; sendto 44 206; sendmsg 46 211; "
    # other programs and processes
    "execve 59 221; execveat 322 281; fork 57 -; vfork 58 -; kill 62 129; tkill 200 130; rt_sigqueueinfo 129 138; "
    "rt_tgsigqueueinfo 297 240; ptrace 101 117; process_vm_readv 310 270; process_vm_writev 311 271; "
    "pidfd_open 434 434; pidfd_getfd 438 438; pidfd_send_signal 424 424; "
    # changes to files
    "creat 85 -; truncate 76 45; ftruncate 77 46; unlink 87 -; unlinkat 263 35; rename 82 -; renameat 264 38; "
    "renameat2 316 276; link 86 -; linkat 265 37; symlink 88 -; symlinkat 266 36; mkdir 83 -; mkdirat 258 34; "
    "rmdir 84 -; mknod 133 -; mknodat 259 33; chmod 90 -; fchmod 91 52; fchmodat 268 53; fchmodat2 452 452; "
    "chown 92 -; fchown 93 55; lchown 94 -; fchownat 260 54; setxattr 188 5; lsetxattr 189 6; fsetxattr 190 7; "
    "removexattr 197 14; utime 132 -; utimes 235 -; utimensat 280 88; futimesat 261 -; "
    # ways out of all this, for who runs as root
    "setrlimit 160 164; unshare 272 97; setns 308 268; mount 165 40; umount2 166 39; chroot 161 51; "
    "pivot_root 155 41; bpf 321 280; perf_event_open 298 241; userfaultfd 323 282; add_key 248 217; "
    "request_key 249 218; keyctl 250 219"
)
"""System calls that are always refused, each with its number on x86-64 and on arm64, or - (Linux:
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h). What the C
library, Python and FFmpeg of other versions need is not known, so there is no list of what is allowed."""

_UNKNOWN = "io_uring_setup 425 425; clone3 435 435; openat2 437 437"
"""Calls that could do these unseen by a filter: answered as by an older kernel, so that the caller takes another."""

_MACHINES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
"""AUDIT_ARCH of each (include/uapi/linux/audit.h): a call made for another machine (32 bits) has other numbers."""

# Operations of the kernel's packet filter (include/uapi/linux/bpf_common.h) on the record of a call: number at 0,
# machine at 4, arguments of 8 bytes each from 16 on, the low half first.
_LOAD, _IF_EQUAL, _IF_FROM, _IF_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CONDITIONAL = {
    "open 2 -": (1, _IF_BITS, _WRITES, 0),
    "openat 257 56": (2, _IF_BITS, _WRITES, 0),
    "clone 56 220": (0, _IF_BITS, 0x0001_0000, 1),  # CLONE_THREAD: threads may be made
    "tgkill 234 131": (0, _IF_EQUAL, os.getpid(), 1),  # abort() sends a signal to the process itself
    "prlimit64 302 261": (2, _IF_BITS, 0xFFFF_FFFF, 0),  # new limits; without them it only reads the old
}
"""Calls that depend on an argument: its number, a test, and whether the call is allowed or refused where that holds."""


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("operations", ctypes.c_char_p))


def _filter_calls() -> bool:
    """Let the kernel refuse these calls in this thread and all that it starts; return whether it does."""
    machine = platform.machine()
    if machine not in _MACHINES or struct.calcsize("P") != 8:
        return False
    program = b"".join(_operations(machine))
    record = _Filter(len(program) // 8, program)
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1) and _prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.addressof(record))


def _operations(machine: str) -> list[bytes]:
    """Return the filter as the kernel takes it: the first rule that fits decides, what fits none is allowed."""
    refused, allowed = _operation(_RETURN, _REFUSE | errno.EPERM), _operation(_RETURN, _ALLOW)
    rules: dict[str, tuple[bytes, ...]] = dict.fromkeys(_REFUSED.split(";"), (refused,))
    rules |= dict.fromkeys(_UNKNOWN.split(";"), (_operation(_RETURN, _REFUSE | errno.ENOSYS),))
    for call, (argument, test, value, is_allowed) in _CONDITIONAL.items():
        load, decide = _operation(_LOAD, 16 + 8 * argument), _operation(test, value, is_allowed, 1 - is_allowed)
        rules[call] = (load, decide, refused, allowed)
    operations = [
        *(_operation(_LOAD, 4), _operation(_IF_EQUAL, _MACHINES[machine], 1, 0), refused),
        # x86-64 has a second set of numbers from there on, which vadis does not need.
        *(_operation(_LOAD, 0), _operation(_IF_FROM, 0x4000_0000, 0, 1), refused),
    ]
    for call, decision in rules.items():
        number = call.split()[1 if machine == "x86_64" else 2]
        if number != "-":
            operations += [_operation(_IF_EQUAL, int(number), 0, len(decision)), *decision]
    return [*operations, allowed]


def _operation(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _prctl(*arguments: int) -> bool:
    try:
        call = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    call.argtypes = [ctypes.c_ulong] * 5
    return bool(call(*arguments, *[0] * (5 - len(arguments))) == 0)
