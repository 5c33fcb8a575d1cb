"""Git's name for a content: the SHA-1 of ``b"blob SIZE\\0"`` and the content.

DeepMind published no checksums, but a file in a git repository has this one. SHA-1 is weak where an attacker makes
both files; here the published one is given, and the CRC-32C of every tensor must agree too.
"""

import hashlib
from pathlib import Path

CHUNK_BYTES = 1 << 20


def git_blob_id(path: Path) -> str:
    """The git blob id of a file, 40 hexadecimal digits; raises OSError if it cannot be read."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        digest = _digest(size)
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def git_blob_id_of(content: bytes) -> str:
    """Return the git blob id of a content, 40 hexadecimal digits."""
    digest = _digest(len(content))
    digest.update(content)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits; raises OSError if it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _digest(size: int) -> "hashlib._Hash":
    """Return a digest that has seen what git hashes in front of a content of ``size`` bytes."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
