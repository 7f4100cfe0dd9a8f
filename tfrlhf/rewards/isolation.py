"""Runs one Python program shut off from the machine; started by sandbox.py.

A script of the standard library alone. It takes namespaces of its own (mounts,
network, processes), builds a file system of the interpreter, read-only, and a
small /tmp in memory, gives up every privilege and limit that it can, and only
then runs the program. Any step that fails ends it with a message.

Three processes: this one, which kills after the time is over; the first of the
new process namespace, with which all others die; and the program.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import types
from typing import Any

NEW_USER = 0x10000000
# Mounts, host name, System V IPC, processes, network.
NEW_SPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
NO_SETUID, NO_DEVICES = 2, 4
BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18
SET_PARENT_DEATH, SET_DUMPABLE, DROP_BOUND, NO_NEW_PRIVILEGES = 1, 4, 24, 38
MOUNT_SETATTR, AT_RECURSIVE, READ_ONLY = 442, 0x8000, 1
CAPABILITY_VERSION = 0x20080522
# Covered in the new mounts: nothing that the program needs lies there.
ROOT = "/proc"
PROCESSES = 10
FILE_BYTES = 16 * 2**20
RESULTS = 9

libc = ctypes.CDLL(None, use_errno=True)


class SetupError(OSError):
    """A step that shuts the program off failed."""


def main() -> None:
    """Reads the job from standard input; results go to standard output."""
    job = json.load(sys.stdin)
    job["number"] = os.getpid()
    try:
        call("prctl", SET_PARENT_DEATH, signal.SIGKILL, 0, 0, 0)
        take_namespaces()
        build_root(job["directories"], job["devices"])
        first = os.fork()
    except OSError as error:
        os.write(1, f"{job['secret']} refused {error}\n".encode())
        sys.exit(1)
    if first == 0:
        run_first(job)

    def end(*_: Any) -> None:
        os.kill(first, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, job["seconds"])
    os.waitpid(first, 0)


def take_namespaces() -> None:
    """Leaves the machine's namespaces; without root by a user namespace."""
    user, group = os.geteuid(), os.getegid()
    rooted = user == 0 and has_other_users()
    call("unshare", NEW_SPACES if rooted else NEW_SPACES | NEW_USER)
    if not rooted:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"1000 {user} 1"),
            ("gid_map", f"1000 {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    call("mount", b"none", b"/", None, RECURSIVE | PRIVATE, None)


def has_other_users() -> bool:
    """Tells whether root can become another user; not in every container."""
    with open("/proc/self/uid_map") as file:
        return sum(int(line.split()[2]) for line in file) >= 60_000


def build_root(directories: list[str], devices: list[str]) -> None:
    """Makes a file system of what is named, and moves into it."""
    mount_memory(ROOT, "size=1m,mode=755")
    os.mkdir(f"{ROOT}/dev")
    os.mkdir(f"{ROOT}/tmp")
    for directory in directories:
        if os.path.islink(directory):
            os.symlink(os.readlink(directory), ROOT + directory)
        else:
            os.makedirs(ROOT + directory, exist_ok=True)
            bind(directory)
    for device in devices:
        os.close(os.open(ROOT + device, os.O_CREAT))
        bind(device)
    # struct mount_attr: set, clear, propagation, user namespace.
    wish = (ctypes.c_uint64 * 4)(READ_ONLY | NO_SETUID, 0, 0, 0)
    path = ctypes.c_char_p(ROOT.encode())
    size = ctypes.c_size_t(ctypes.sizeof(wish))
    call("syscall", MOUNT_SETATTR, -1, path, AT_RECURSIVE, wish, size)
    mount_memory(f"{ROOT}/tmp", "size=64m,nr_inodes=4096,mode=1777")
    os.chroot(ROOT)
    os.chdir("/tmp")


def run_first(job: dict[str, Any]) -> None:
    """Is the first process of its namespace: starts the program and waits."""
    try:
        drop_privileges(job["number"])
        # It dies with its parent, and the program cannot look into it.
        call("prctl", SET_PARENT_DEATH, signal.SIGKILL, 0, 0, 0)
        call("prctl", SET_DUMPABLE, 0, 0, 0, 0)
        limit(job["seconds"], job["memory"])
        program = os.fork()
        if program == 0:
            close_files()
            run_program(job["secret"], job["program"], job["tests"])
    except Exception as error:
        os.write(1, f"{job['secret']} refused {error}\n".encode())
        os._exit(1)
    os.waitpid(program, 0)
    os._exit(0)


def drop_privileges(number: int) -> None:
    """Gives up root, every capability and the way back to them."""
    bound = 0
    while libc.prctl(DROP_BOUND, bound, 0, 0, 0) == 0:
        bound += 1
    if os.geteuid() == 0:
        # A user of its own, so that its processes are counted apart.
        user = 20_000 + number % 40_000
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def limit(seconds: float, megabytes: int) -> None:
    """Sets what each process may use."""
    for kind, most in (
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_AS, megabytes * 2**20),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NPROC, PROCESSES),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        _, allowed = resource.getrlimit(kind)
        if allowed != resource.RLIM_INFINITY:
            most = min(most, allowed)
        resource.setrlimit(kind, (most, most))


def close_files() -> None:
    """Leaves open the place for results, and the null device as 0, 1, 2."""
    os.dup2(1, RESULTS)
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.closerange(3, RESULTS)
    os.closerange(RESULTS + 1, 64)


def run_program(secret: str, program: str, tests: list[str]) -> None:
    """Runs program and tests; writes a line for each test that passed."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(compile(program, "solution", "exec"), module.__dict__)
        for index, test in enumerate(tests):
            try:
                exec(compile(test, "test", "exec"), module.__dict__)
            except BaseException:
                continue
            os.write(RESULTS, f"{secret} passed {index}\n".encode())
    finally:
        os._exit(0)


def call(name: str, *arguments: Any) -> None:
    """Calls the C library; an error becomes an exception that names it."""
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise SetupError(number, f"{name}: {os.strerror(number)}")


def bind(path: str) -> None:
    """Shows a path of the machine at the same place under the new root."""
    source, target = path.encode(), (ROOT + path).encode()
    call("mount", source, target, None, BIND | RECURSIVE, None)


def mount_memory(path: str, options: str) -> None:
    """Mounts a file system that lives in memory."""
    flags = NO_SETUID | NO_DEVICES
    call("mount", b"tmpfs", path.encode(), b"tmpfs", flags, options.encode())


if __name__ == "__main__":
    main()
