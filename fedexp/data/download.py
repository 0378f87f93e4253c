"""Files that a publisher offers for download: fetched whole or not at all, read only if intact."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedexp.core.checks import InputError


@dataclass(frozen=True)
class RemoteFile:
    """One published file and where it belongs on this machine.

    `urls` are mirrors of the same bytes, tried in turn; `md5` is the publisher's checksum in hex;
    `dataset` is what follows `fedexp data get`: the collection's name, and keys that lead to it.
    """

    path: Path
    urls: tuple[str, ...]
    md5: str
    dataset: str


def fetch(file: RemoteFile, progress: bool) -> None:
    """Download `file` unless something lies at its path already.

    The bytes go to a temporary name in the same folder and are renamed once their MD5 is right, so
    an interrupted download leaves nothing behind. A file that is there is left alone, whatever it
    holds: `read` judges it.

    Args:
        file: what to fetch.
        progress: whether to say on stderr what is fetched, with a progress bar.

    Raises:
        InputError: no mirror gave the right bytes, or the folder cannot be written. It says what
            to download by hand and where to put it.
    """
    if present(file.path):
        return

    import pooch

    pooch.get_logger().setLevel("INFO" if progress else "WARNING")
    # Some servers compress on the way; the checksum is that of the bytes as published.
    headers = {"Accept-Encoding": "identity"}
    downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=2**16, headers=headers)
    folder = file.path.parent
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    failures = []
    for url in file.urls:
        try:
            pooch.retrieve(
                url,
                known_hash=f"md5:{file.md5}",
                fname=file.path.name,
                path=file.path.parent,
                downloader=downloader,
            )
        except (OSError, ValueError) as error:
            failures.append(f"{url} ({_reason(error)})")
        else:
            # Temporary files are private to their owner; a data folder is often shared.
            file.path.chmod(0o644)
            return
    with suppress(OSError):  # somebody else may have put something there
        for place in new:
            place.rmdir()
    raise InputError(
        f"{file.path} is missing and could not be downloaded: {', '.join(failures)}; "
        f"put the file with MD5 {file.md5} there by hand"
    )


def read(file: RemoteFile) -> bytes:
    """The content of `file`, fetched first if it is missing.

    Raises:
        InputError: it is missing and cannot be fetched, cannot be read, or is not what was
            published.
    """
    return read_local(intact(file))


def intact(file: RemoteFile) -> Path:
    """Where `file` lies, fetched first if it is missing, and looked through whole.

    Raises:
        InputError: as `read`.
    """
    fetch(file, progress=sys.stderr.isatty())
    try:
        with open(file.path, "rb") as content:
            digest = hashlib.file_digest(content, partial(hashlib.md5, usedforsecurity=False))
            found, size = digest.hexdigest(), content.tell()
    except OSError as error:
        raise _unreadable(file.path, error) from error
    if found != file.md5:
        reason = f"expected MD5 {file.md5}, found {found} in {size:,} bytes"
        raise damaged(file.path, reason, file.dataset)
    return file.path


def present(path: Path) -> bool:
    """Whether something lies at `path`, as far as this user may look."""
    # Path.exists raises where the folder may not be entered; os.path.exists says no.
    return os.path.exists(path)


def read_local(path: Path) -> bytes:
    """The content of a file on this machine; an InputError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read: {error.strerror}")


def damaged(source: Path | str, reason: str, dataset: str) -> InputError:
    """The error for a file whose content is not what it should be.

    >>> print(damaged("digits.npz", "expected 3 arrays, found 2", "digits"))
    digits.npz is damaged: expected 3 arrays, found 2; delete it and run `fedexp data get digits`
    """
    return InputError(
        f"{source} is damaged: {reason}; delete it and run `fedexp data get {dataset}`"
    )


def _reason(error: OSError | ValueError) -> str:
    """Why a download failed, in a few words: the libraries' own messages fill several lines."""
    import requests

    # The order matters: the first two are kinds of the third, and all are kinds of OSError.
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.RequestException):
        return "the transfer broke off"
    if isinstance(error, PermissionError):
        return "cannot be written: Permission denied"
    if isinstance(error, OSError):
        return f"cannot be written: {error.strerror or error}"
    return "the content does not have the published MD5"
