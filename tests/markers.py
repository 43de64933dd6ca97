"""Values that stand nowhere else, and the search for them in every table and file of a platform, in many encodings."""

import base64
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import asyncpg
from running import Platform

from concord_local.stack import DATABASES

CHUNK_BYTES = 16 << 20


class Markers:
    """The planted values, which stand nowhere else, and all the bytes they could be found as."""

    def __init__(self) -> None:
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.word = "".join(secrets.choice(letters) for _ in range(14))
        self.phone = f"77{random.randrange(10**7):07d}"
        self.passport = f"ZX{random.randrange(10**9):09d}"
        self.han = "".join(chr(random.randrange(0x4E00, 0x9FA0)) for _ in range(4))
        self.control = "".join(secrets.choice(letters) for _ in range(14))

    def patterns(self) -> dict[bytes, str]:
        """What to look for, lower case, and what it is."""
        return {
            form: f"{kind} of {text[:2]}…"
            for text in (self.word, self.phone, self.passport.lower(), self.han)
            for kind, form in forms(text)
        }


def forms(text: str) -> Iterator[tuple[str, bytes]]:
    """A text in the encodings it might have been written in, lower case."""
    plain = text.encode()
    encoded = {"UTF-8": plain, "UTF-16LE": text.encode("utf-16-le"), "UTF-16BE": text.encode("utf-16-be")}
    if not text.isascii():
        encoded["JSON"] = text.encode("unicode-escape")
        encoded["GB 18030"] = text.encode("gb18030")
        encoded["percent"] = "".join(f"%{byte:02x}" for byte in plain).encode()
    encoded["hex"] = plain.hex().encode()
    for shift in range(3):  # what stands before decides where the groups of three begin; the letters at the edges depend on it
        inner = base64.b64encode(b"\0" * shift + plain)
        encoded[f"base64+{shift}"] = inner[(0, 2, 3)[shift] : len(inner) // 4 * 4 - 4]
    for kind, form in encoded.items():
        yield kind, form.lower()


def found_in_files(folder: Path, patterns: dict[bytes, str]) -> set[tuple[str, str]]:
    """(file, what) for everything found in any file below a folder."""
    overlap = max(map(len, patterns))
    findings = set()
    for path in folder.rglob("*"):
        if not path.is_file() or "programs" in path.parts:
            continue
        tail = b""
        try:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    content = tail + chunk.lower()
                    findings |= {(str(path.relative_to(folder)), what) for form, what in patterns.items() if form in content}
                    tail = content[-overlap:]
        except FileNotFoundError:  # PostgreSQL removes files while we look
            continue
    return findings


async def found_in_tables(platform: Platform, patterns: dict[bytes, str]) -> set[tuple[str, str]]:
    """(table, what) for everything found in any row of any database; compressed values are read as what they are."""
    findings = set()
    for database in DATABASES:
        connection = await asyncpg.connect(platform.stack.database_url(database))
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in tables:
            rows = await connection.fetch(f'SELECT t::text FROM "{table}" t')
            content = "\n".join(row[0] for row in rows).lower().encode()
            findings |= {(f"{database}.{table}", what) for form, what in patterns.items() if form in content}
        await connection.close()
    return findings


async def everywhere(platform: Platform, patterns: dict[bytes, str]) -> set[tuple[str, str]]:
    """Tables and files, after PostgreSQL has written what it holds in memory."""
    assert platform.stack.postgres is not None
    superuser = await asyncpg.connect(platform.stack.postgres.url())
    await superuser.execute("CHECKPOINT")
    await superuser.close()
    return await found_in_tables(platform, patterns) | found_in_files(platform.folder, patterns)
