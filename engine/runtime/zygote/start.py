"""How the zygote comes to be: away from the daemon, in mounts of its own, as a program that nobody can overwrite."""

from __future__ import annotations

import os
import sys

from engine.kernel import libc
from engine.runtime.zygote import ownmounts

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import NoReturn

_SECOND = (
    "import sys; sys.path.insert(0, sys.argv[1]); from engine.runtime.zygote.main import main;"
    " main(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))"
)


def first(arguments: list[str]) -> NoReturn:
    """Forks, for the zygote must not be a child of the daemon, whose death it outlives, and begins anew.

    `arguments`: where our packages are, the exec root, the control group's parent, the listening descriptor.
    """
    if os.fork():
        os._exit(0)
    interpreter = os.path.realpath(sys.executable)
    home, exec_root, *_ = arguments
    hosts = ownmounts.enter([interpreter, home, exec_root, *map(os.path.realpath, sys.path)])
    _seal(interpreter)
    os.execv(interpreter, [interpreter, "-I", "-S", "-c", _SECOND, *arguments, *map(str, hosts)])  # noqa: S606


def _seal(interpreter: str) -> None:
    """Lets the interpreter be executed through a read-only mount only (CVE-2019-5736).

    A program of a container may be `#!/proc/self/exe`: then it is our interpreter, and its /proc/self/exe leads to the
    host's file. Unbindable, so that a container that is given the folder sees it as it is.
    """
    tree = libc.open_tree(libc.AT_FDCWD, interpreter, libc.OPEN_TREE_CLONE | libc.OPEN_TREE_CLOEXEC)
    libc.mount_setattr(tree, attributes=libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NOSUID, propagation=libc.MS_UNBINDABLE)
    libc.move_mount(tree, interpreter)
    os.close(tree)
