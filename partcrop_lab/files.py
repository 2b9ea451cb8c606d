"""Files from outside, opened and parsed with care: regular files only, JSON of a bounded size and depth."""

from __future__ import annotations

import json
import math
import os
import stat
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from partcrop_lab.errors import BadInput
from partcrop_lab.limits import limit, refuse_above, refuse_bomb, short

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file for reading, never waiting for one that is a pipe.

    Raises:
        BadInput: no such file, one that may not be read, or none that holds bytes: a folder, pipe, device or socket.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file{_dangling(path)}") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: {_kind(path)}cannot be read ({_why(error)}); give a regular file") from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise BadInput(f"{path}: {KINDS.get(stat.S_IFMT(mode), 'something')}, not a regular file")
    return os.fdopen(handle, "rb")


def _dangling(path: str | Path) -> str:
    return " (a link that leads nowhere)" if os.path.islink(path) else ""


def _kind(path: str | Path) -> str:
    try:
        kind = KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):
        kind = None
    return f"{kind}, " if kind else ""


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def check_regular(path: str | Path) -> None:
    """Refuse a path that `open_regular` refuses."""
    open_regular(path).close()


def read_bytes(path: str | Path, limit_name: str = "json") -> bytes:
    """The content of a regular file of bounded size.

    Raises:
        BadInput: as `open_regular`, or a file above the limit.
    """
    with open_regular(path) as file:
        refuse_above(limit_name, os.fstat(file.fileno()).st_size, f"{path}: its size in bytes")
        return file.read()


def read_text(path: str | Path) -> str:
    """The content of a regular UTF-8 file of bounded size, with or without a byte order mark.

    Raises:
        BadInput: as `read_bytes`, or other bytes.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not a text in UTF-8; save it so") from error


def parse_json(text: str | bytes, where: str) -> Any:
    """What a JSON text from outside says.

    Args:
        text: the JSON.
        where: file, and field in it, for errors.

    Raises:
        BadInput: no JSON, or a text that is too long, nests too deep or holds a number of thousands of digits.
    """
    refuse_above("json", len(text), f"{where}: its size in bytes")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: not a JSON file ({error})") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: not a JSON file (no UTF-8)") from error
    except RecursionError as error:
        raise BadInput(f"{where}: JSON that nests deeper than {limit('nesting')}") from error
    except ValueError as error:  # Python refuses to convert numbers of so many digits
        raise BadInput(f"{where}: JSON with a number of thousands of digits") from error
    _check_nesting(value, where)
    return value


def _check_nesting(value: Any, where: str) -> None:
    """Level by level, so that no depth exhausts the stack."""
    level, depth = [value], 0
    while level:
        depth += 1
        refuse_above("nesting", depth, f"{where}: how deep its JSON nests")
        held = [one for one in level if isinstance(one, (dict, list))]
        level = [one for box in held for one in (box.values() if isinstance(box, dict) else box)]


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        BadInput: as `read_bytes` and `parse_json`.
    """
    return parse_json(read_bytes(path), str(path))


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a NumPy .npz file by name, none of them read before all declared sizes are known and allowed.

    Raises:
        BadInput: no regular file, arrays that would unpack to too much, or of Python objects.
        ValueError, OSError, zipfile.BadZipFile, zlib.error: no such archive, or a damaged one.
    """
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        refuse_bomb(path, sum(member.file_size for member in members), os.fstat(file.fileno()).st_size)
        for member in members:
            _check_array(archive, member, f"{path}: {member.filename[:60]!r}")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)


def _check_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> None:
    """Whether the shape in an array's own header is that of as many bytes as its archive declares."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read:
            raise BadInput(f"{where} is an array of a format that is not known; save it with numpy.savez")
        shape, _, dtype = read[version](file)
        if dtype.hasobject:
            raise ValueError("an array of Python objects")
        if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise BadInput(f"{where} declares the shape {_few(shape)}, which is not as much as it holds")


def _few(shape: tuple[int, ...]) -> str:
    sizes = ", ".join(map(short, shape[:4]))
    return f"({sizes}{', ...' if len(shape) > 4 else ''})"
