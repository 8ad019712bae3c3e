"""What is wrong with a file, said in one way; and sizes that no file of its length can hold."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

DEFLATE = 1032  # times as long as its compressed form is what DEFLATE (gzip, zip, TIFF, HDF5) makes at most
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
_LONGEST = 300  # characters of somebody else's message


@contextlib.contextmanager
def damage_named(
    path: str | os.PathLike[str], what: str = "is truncated or damaged", then: str = "copy or save it again"
) -> Iterator[None]:
    """Whatever a parser raises becomes a ValueError that names the file.

    Damaged files show themselves in every kind of exception. Messages that begin with the path are our own
    and stay; so does what is the matter with the machine, such as a full disk.

    Parameters
    ----------
    path
        The file.
    what
        Is the matter with it.
    then
        What to do about it.

    Raises
    ------
    ValueError
        Anything went wrong with the file in the block.
    OSError
        Anything went wrong with the machine.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError | TypeError | FileNotFoundError) and str(error).startswith(str(path)):
            raise
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise
        reason = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        raise ValueError(f"{path} {what} ({reason}); {then}") from error
