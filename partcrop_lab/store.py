"""Content-addressed files on disk: written atomically, found again by what made them.

Every artefact lives at ``<cache>/<room>/<key>``, where the key is a digest of everything that decides
its content. A file is written beside its place, flushed and renamed, so a reader in another kernel sees
either nothing or the whole file, and a killed run leaves only a temporary file behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from partcrop_lab.errors import BadInput
from partcrop_lab.files import read_json as read_json  # beside `write_json`, where users look for it

if TYPE_CHECKING:
    import pandas as pd

CACHE_VARIABLE = "PARTCROP_LAB_CACHE"
FORMULA = re.compile(r"[=+\-@\t\r](?!$|[\d.,eE+\-]*$)")
"""How text begins that spreadsheets run as a formula, numbers aside."""
CHECKSUM = "checksum"
"""Under which every entry of the cache has the digest of what it holds."""


def cache_dir() -> Path:
    """The cache folder: ``$PARTCROP_LAB_CACHE``, else ``~/.cache/partcrop-lab``."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "partcrop-lab")


def digest(*parts: Any) -> str:
    """A sha256 in hex of JSON-able values, bytes and arrays, in the order given.

    >>> digest({"a": 1}) == digest({"a": 1}), digest(1) == digest(2)
    (True, False)
    """
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype.str}{part.shape}".encode())
            sha.update(np.ascontiguousarray(part).data)
        elif isinstance(part, bytes):
            sha.update(part)
        else:
            sha.update(json.dumps(part, sort_keys=True, separators=(",", ":")).encode())
        sha.update(b"\x00")
    return sha.hexdigest()


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    Raises:
        BadInput: the folder cannot be written or the disk is full; nothing is left behind.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}; free some disk space or point "
            f"{CACHE_VARIABLE} (or the output argument) at a folder that can be written"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


def with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they were before they went through JSON, where tuples become lists.

    >>> with_tuples({"scale": [0.2, 1.0], "crops": 3})
    {'scale': (0.2, 1.0), 'crops': 3}
    """
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, atomically: five digits, no index, the same bytes on every system.

    A name that a spreadsheet would take for a formula begins with an apostrophe.
    """
    safe = table.rename(columns=_no_formula)
    for name in safe.select_dtypes(exclude=["number", "bool"]):
        safe[name] = safe[name].map(_no_formula, na_action="ignore")
    with atomic(path) as temporary:
        safe.to_csv(temporary, index=False, float_format="%.5g", lineterminator="\n")


def _no_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def cached_arrays(room: str, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays stored under `room` and `key`; made, stored and returned where they are missing or damaged."""
    path = cache_dir() / room / f"{key}.safetensors"
    if path.exists():
        try:
            with safe_open(path, framework="numpy") as file:
                checksum = (file.metadata() or {}).get(CHECKSUM)
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if checksum == _checksum(key, kept):
                return kept
        except Exception:  # a file from a dying disk makes readers raise almost anything
            checksum = None
        _say_damaged(path)
    arrays = {name: np.ascontiguousarray(value) for name, value in make().items()}
    with atomic(path) as temporary:
        save_file(arrays, temporary, {CHECKSUM: _checksum(key, arrays)})
    return arrays


def _checksum(key: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Of names, kinds, shapes and numbers, and of the key, so that no entry passes for another."""
    return digest(key, *(part for name in sorted(arrays) for part in (name, arrays[name])))


def cached_json(room: str, key: str, make: Callable[[], Any]) -> Any:
    """The JSON-able value stored under `room` and `key`; made, stored and returned where it is missing or damaged."""
    path = cache_dir() / room / f"{key}.json"
    if path.exists():
        try:
            kept = read_json(path)
            if kept[CHECKSUM] == digest(key, kept["value"]):
                return kept["value"]
        except (BadInput, LookupError, TypeError):
            pass
        _say_damaged(path)
    value = json.loads(json.dumps(make()))  # as it will be read again
    write_json(path, {CHECKSUM: digest(key, value), "value": value})
    return value


def _say_damaged(path: Path) -> None:
    warnings.warn(f"{path}: this entry of the cache is damaged or of an older version; it is made anew", stacklevel=3)


def cache_sizes() -> dict[str, int]:
    """Bytes held by each room of the cache."""
    root = cache_dir()
    rooms = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    return {room.name: sum(f.stat().st_size for f in room.rglob("*") if f.is_file()) for room in rooms}


def clear_cache(room: str | None = None) -> int:
    """Delete one room of the cache, or all of it; returns the bytes freed."""
    sizes = cache_sizes()
    if room is not None and room not in sizes:
        raise BadInput(f"the cache has no room {room!r}; it has {', '.join(sizes) or 'none'}")
    for name in [room] if room else sizes:
        shutil.rmtree(cache_dir() / name)
    return sizes[room] if room else sum(sizes.values())
