"""The default system call filter, as data: what a container may call without asking for more.

Everything not named here fails with EPERM. The grouping is by purpose, so that a reader can judge each group;
`profile()` gives it in the JSON shape that `--security-opt seccomp=FILE` reads.
"""

from __future__ import annotations

from typing import Any

_FILES = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl
fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64
fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat
listmount llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at
newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr
setxattrat splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs tee truncate
truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev
"""

_MEMORY = """
brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap
mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
remap_file_pages
"""

_PROCESSES = """
capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getegid getegid32
geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid
getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kill
pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease restart_syscall rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
sched_setparam sched_setscheduler sched_yield set_robust_list set_thread_area set_tid_address setfsgid
setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32
setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sigaltstack
signalfd signalfd4 sigprocmask sigreturn tgkill tkill ugetrlimit uretprobe vfork wait4 waitid waitpid
"""

_CONFINING_ONESELF = "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp"

_WAITING = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
eventfd2 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake io_cancel io_destroy io_getevents
io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect pipe pipe2 poll ppoll ppoll_time64 pselect6
pselect6_time64 select
"""

_TIME = """
adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create
timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times
"""

_TALKING = """
accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd
recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64 send sendmmsg
sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair
"""

_MACHINE = "getrandom sysinfo uname"

# Reading another process of the same container: since 4.8 ptrace can't step around a filter.
_TRACING = "process_vm_readv process_vm_writev ptrace"

_ARCHITECTURES = {
    ("amd64", "x32"): "arch_prctl",
    ("amd64", "x32", "x86"): "modify_ldt",
    ("arm", "arm64"): "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    ("ppc64le",): "sync_file_range2 swapcontext",
    ("riscv64",): "riscv_flush_icache",
    ("s390", "s390x"): "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
}

_WITH_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
        "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl "
        "quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"
    ),
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

_AF_ALG, _AF_VSOCK = 38, 40
"""The kernel's cryptography, a large surface that few need, and the hypervisor, which knows no network namespace."""

# Linux, Linux with UNAME26, with ADDR_NO_RANDOMIZE, both, and "only tell me".
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)

_NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: a clone without any of them makes no namespace."""

_ENOSYS = 38
_ALLOW = "SCMP_ACT_ALLOW"


def profile() -> dict[str, Any]:
    """The default profile in Docker's JSON shape."""
    rules: list[dict[str, Any]] = []

    def allow(names: str, **conditions: Any) -> None:
        rules.append({"names": names.split(), "action": _ALLOW, **conditions})

    def argument(index: int, value: int, operator: str, value_two: int = 0) -> list[dict[str, Any]]:
        return [{"index": index, "value": value, "valueTwo": value_two, "op": f"SCMP_CMP_{operator}"}]

    groups = (_FILES, _MEMORY, _PROCESSES, _CONFINING_ONESELF, _WAITING, _TIME, _TALKING, _MACHINE)
    allow(" ".join(groups))
    allow(_TRACING, includes={"minKernel": "4.8"})
    allow("socket", args=argument(0, _AF_ALG, "LT"))
    allow("socket", args=argument(0, _AF_ALG + 1, "EQ"))
    allow("socket", args=argument(0, _AF_VSOCK, "GT"))
    for persona in _PERSONALITIES:
        allow("personality", args=argument(0, persona, "EQ"))
    for arches, names in _ARCHITECTURES.items():
        allow(names, includes={"arches": list(arches)})
    for capability, names in _WITH_CAPABILITY.items():
        allow(names, includes={"caps": [capability]})
    without = {"caps": ["CAP_SYS_ADMIN"]}
    s390 = ["s390", "s390x"]
    plain = argument(0, _NAMESPACE_FLAGS, "MASKED_EQ")
    allow("clone", args=plain, excludes=without | {"arches": s390})
    # On s390 the first two arguments of clone change places.
    swapped = argument(1, _NAMESPACE_FLAGS, "MASKED_EQ")
    allow("clone", args=swapped, includes={"arches": s390}, excludes=without)
    # A filter can't look behind clone3's pointer. ENOSYS makes libc fall back to clone.
    rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS, "excludes": without})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]},
            {"architecture": "SCMP_ARCH_PPC64LE", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": []},
        ],
        "syscalls": rules,
    }
