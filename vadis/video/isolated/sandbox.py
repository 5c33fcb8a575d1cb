"""What a process that decodes gives up before it sees a file: memory without end, writing, the network, other programs.

FFmpeg reads hostile bytes, and one day one of its decoders will do what such bytes tell it. Then it runs in a process
that may read and compute, and talk through the pipes that it was given, and not much else. The limits are those of the
operating system (``setrlimit``); what they cannot take away, a filter of system calls does (Linux: seccomp), where the
kernel allows one. Only a process of its own may call ``confine``: nothing of it can be taken back.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
from pathlib import Path
from typing import NamedTuple

from vadis.errors import VideoError
from vadis.video.metadata import more

MAX_OPEN_FILES = 32  # the video, three pipes, what the C library reads by the way

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38  # Linux, include/uapi/linux/prctl.h
_FILTER_MODE = 2  # include/uapi/linux/seccomp.h, as the two answers below
_REFUSE, _ALLOW = 0x0005_0000, 0x7FFF_0000
_EPERM, _ENOSYS = 1, 38


def die_with_parent(parent: int) -> None:
    """From now on the kernel ends this process with its parent, whatever ends that one; Linux only.

    Raises:
        SystemExit: where ``parent``, a process id, is gone already.
    """
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        raise SystemExit(1)


def confine(max_memory_mb: int) -> tuple[str, ...]:
    """Give up all that decoding does not need, for good.

    Args:
        max_memory_mb: of address space, in units of 2**20 bytes.

    Returns:
        In plain words, what could not be given up here; empty where all could.
    """
    limits = {
        "memory is not limited": (resource.RLIMIT_AS, max_memory_mb << 20),
        "core dumps are written": (resource.RLIMIT_CORE, 0),
        "open files are not limited": (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        "files can be written": (resource.RLIMIT_FSIZE, 0),
    }
    left = [what for what, (number, value) in limits.items() if not _is_limited(number, value)]
    if not _filter_calls():
        left.append("the network, other programs and changes to files are not refused by the kernel")
    return tuple(left)


def _is_limited(number: int, value: int) -> bool:
    """Whether a limit stands now; one that was tighter before is left as it is."""
    _, most = resource.getrlimit(number)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    try:
        resource.setrlimit(number, (value, value))
    except (OSError, ValueError):
        return False
    return True


def has_used_much_memory() -> bool:
    """Whether this process has ever held half of the memory that it may hold; False where that is not limited."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return False
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return False
    peak_kb = next((line.split()[1] for line in status.splitlines() if line.startswith("VmPeak:")), "0")
    return int(peak_kb) << 10 > most // 2


def memory_refusal(error: Exception) -> VideoError | None:
    """What an error means by which memory ran out; None where it means something else.

    Of a damaged header that asks for an absurd amount FFmpeg says the same, without ever having held much.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    return too_much_memory(most >> 20) if isinstance(error, MemoryError) and has_used_much_memory() else None


def too_much_memory(limit_mb: int) -> VideoError:
    """Why a video was refused that a process of ``limit_mb`` has no room for."""
    message = f"to decode it takes more memory than the {limit_mb:,} MB that the limit allows"
    return VideoError("too_large", message, more("max_memory_mb"))


class _Rule(NamedTuple):
    """A system call that is refused: its numbers on x86-64 and on arm64 (None: it has none), and when.

    ``argument`` None: always. Otherwise only where that argument has any of ``bits``, or none of ``lacking``; or, where
    neither is given, where it is not this process's id.
    """

    x86_64: int | None
    aarch64: int | None
    argument: int | None = None
    bits: int = 0
    lacking: int = 0
    unknown: bool = False  # answered as by a kernel that does not know the call, so that the caller takes an older one


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CLONE_THREAD = 0x0001_0000

_RULES = {
    # the network
    "socket": _Rule(41, 198),
    "socketpair": _Rule(53, 199),
    "connect": _Rule(42, 203),
    "bind": _Rule(49, 200),
    "listen": _Rule(50, 201),
    "accept": _Rule(43, 202),
    "accept4": _Rule(288, 242),
    "sendto": _Rule(44, 206),
    "sendmsg": _Rule(46, 211),
    "io_uring_setup": _Rule(425, 425, unknown=True),  # through which all of these could be had
    # other programs and processes
    "execve": _Rule(59, 221),
    "execveat": _Rule(322, 281),
    "fork": _Rule(57, None),
    "vfork": _Rule(58, None),
    "clone": _Rule(56, 220, argument=0, lacking=_CLONE_THREAD),  # threads may be made
    "clone3": _Rule(435, 435, unknown=True),  # whose flags a filter cannot see; threads are made by clone then
    "kill": _Rule(62, 129),
    "tkill": _Rule(200, 130),
    "tgkill": _Rule(234, 131, argument=0),  # abort() sends a signal to the process itself
    "rt_sigqueueinfo": _Rule(129, 138),
    "rt_tgsigqueueinfo": _Rule(297, 240),
    "ptrace": _Rule(101, 117),
    "process_vm_readv": _Rule(310, 270),
    "process_vm_writev": _Rule(311, 271),
    "pidfd_open": _Rule(434, 434),
    "pidfd_getfd": _Rule(438, 438),
    "pidfd_send_signal": _Rule(424, 424),
    # changes to files
    "open": _Rule(2, None, argument=1, bits=_WRITES),
    "openat": _Rule(257, 56, argument=2, bits=_WRITES),
    "openat2": _Rule(437, 437, unknown=True),
    "creat": _Rule(85, None),
    "truncate": _Rule(76, 45),
    "ftruncate": _Rule(77, 46),
    "unlink": _Rule(87, None),
    "unlinkat": _Rule(263, 35),
    "rename": _Rule(82, None),
    "renameat": _Rule(264, 38),
    "renameat2": _Rule(316, 276),
    "link": _Rule(86, None),
    "linkat": _Rule(265, 37),
    "symlink": _Rule(88, None),
    "symlinkat": _Rule(266, 36),
    "mkdir": _Rule(83, None),
    "mkdirat": _Rule(258, 34),
    "rmdir": _Rule(84, None),
    "mknod": _Rule(133, None),
    "mknodat": _Rule(259, 33),
    "chmod": _Rule(90, None),
    "fchmod": _Rule(91, 52),
    "fchmodat": _Rule(268, 53),
    "fchmodat2": _Rule(452, 452),
    "chown": _Rule(92, None),
    "fchown": _Rule(93, 55),
    "lchown": _Rule(94, None),
    "fchownat": _Rule(260, 54),
    "setxattr": _Rule(188, 5),
    "lsetxattr": _Rule(189, 6),
    "fsetxattr": _Rule(190, 7),
    "removexattr": _Rule(197, 14),
    "utime": _Rule(132, None),
    "utimes": _Rule(235, None),
    "utimensat": _Rule(280, 88),
    "futimesat": _Rule(261, None),
    # ways out of all this, for who runs as root
    "setrlimit": _Rule(160, 164),
    "prlimit64": _Rule(302, 261, argument=2, bits=0xFFFF_FFFF),  # new limits; without them it only tells the old
    "unshare": _Rule(272, 97),
    "setns": _Rule(308, 268),
    "mount": _Rule(165, 40),
    "umount2": _Rule(166, 39),
    "chroot": _Rule(161, 51),
    "pivot_root": _Rule(155, 41),
    "bpf": _Rule(321, 280),
    "perf_event_open": _Rule(298, 241),
    "userfaultfd": _Rule(323, 282),
    "add_key": _Rule(248, 217),
    "request_key": _Rule(249, 218),
    "keyctl": _Rule(250, 219),
}
"""The system calls that are refused, by name (Linux: arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h). A list of what is refused rather than of what is allowed: the C library, Python and
FFmpeg come in many versions, and what they need is not known beforehand."""

_MACHINES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
"""AUDIT_ARCH of each (include/uapi/linux/audit.h): a call made for another machine (32 bits) has other numbers."""

_FIRST_X32 = 0x4000_0000  # x86-64 has a second set of numbers from here on, and vadis no use for it

# Operations of the kernel's packet filter (include/uapi/linux/bpf_common.h) on the record of a call: number at 0,
# machine at 4, arguments of 8 bytes each from 16 on, the low half first.
_LOAD, _IF_EQUAL, _IF_FROM, _IF_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("operations", ctypes.c_char_p))


def _filter_calls() -> bool:
    """Whether the kernel refuses the calls of ``_RULES`` from now on, in this thread and all that it starts."""
    machine = platform.machine()
    if machine not in _MACHINES or struct.calcsize("P") != 8:
        return False
    program = b"".join(_operations(machine))
    record = _Filter(len(program) // 8, program)
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1) and _prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.addressof(record))


def _operations(machine: str) -> list[bytes]:
    """The filter as the kernel takes it: the first rule that fits answers, what fits none is allowed."""
    operations = [
        *(_operation(_LOAD, 4), _operation(_IF_EQUAL, _MACHINES[machine], 1, 0), _refusal(_EPERM)),
        *(_operation(_LOAD, 0), _operation(_IF_FROM, _FIRST_X32, 0, 1), _refusal(_EPERM)),
    ]
    for rule in _RULES.values():
        number = rule.x86_64 if machine == "x86_64" else rule.aarch64
        if number is not None:
            then = _answer(rule)
            operations += [_operation(_IF_EQUAL, number, 0, len(then)), *then]
    return [*operations, _operation(_RETURN, _ALLOW)]


def _answer(rule: _Rule) -> list[bytes]:
    """What follows where the number of a call is that of ``rule``."""
    refusal = _refusal(_ENOSYS if rule.unknown else _EPERM)
    if rule.argument is None:
        return [refusal]
    test = _operation(_IF_EQUAL, os.getpid(), 1, 0)  # (…, 1, 0): allowed where it holds
    if rule.bits:
        test = _operation(_IF_BITS, rule.bits, 0, 1)
    elif rule.lacking:
        test = _operation(_IF_BITS, rule.lacking, 1, 0)
    return [_operation(_LOAD, 16 + 8 * rule.argument), test, refusal, _operation(_RETURN, _ALLOW)]


def _refusal(number: int) -> bytes:
    return _operation(_RETURN, _REFUSE | number)


def _operation(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _prctl(*arguments: int) -> bool:
    try:
        call = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    call.argtypes = [ctypes.c_ulong] * 5
    return bool(call(*arguments, *[0] * (5 - len(arguments))) == 0)
