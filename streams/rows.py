"""Rows of files: CSV or JSON lines, plain, gzip or zstd, or standard input for `-`.

What a file is, its first bytes tell: the packing by its magic number, JSON lines by an opening
brace, else CSV, separated by the most frequent of comma, semicolon and tab in its header.
Bytes of a CSV that are no UTF-8 stay in its cells as lone surrogates, which no fact may hold.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any, BinaryIO, cast

import msgspec
import zstandard

from models.errors import BadInput

MAX_CELL_CHARACTERS = 16 * 1024 * 1024

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SEPARATORS = ",;\t"
_CHUNK_BYTES = 64 * 1024
csv.field_size_limit(MAX_CELL_CHARACTERS)

_BREAKAGES = (OSError, EOFError, zlib.error, zstandard.ZstdError, csv.Error)

RawRow = Any
"""A line of JSON (bytes), or the cells of a CSV row (a list of text)."""


class Rows:
    """The rows of a file, in their order; `columns` is None for JSON lines.

    Lines count from 1, the header included; of a CSV row over several lines, the last counts.
    """

    def __init__(self, name: str) -> None:
        """Open the file; BadInput when it is missing or broken at its beginning."""
        self.name = name
        self.columns: list[str] | None = None
        self._file = _open(name)
        self._open = ExitStack()
        self._open.callback(self._file.close)
        self._told = 0
        self._line = 1
        try:
            self._rows = self._begin(_unpacked(self._file))
        except _BREAKAGES as error:
            self.close()
            raise self._broken(error) from error

    def chunk(self, most: int) -> list[tuple[int, RawRow]]:
        """The next (line number, row) pairs, empty at the end; BadInput where the file is broken."""
        try:
            rows = list(islice(self._rows, most))
        except _BREAKAGES as error:
            raise self._broken(error) from error
        self._line = rows[-1][0] if rows else self._line
        return rows

    def as_dict(self, raw: RawRow) -> dict[str, Any]:
        """The row by column; BadInput when it is no JSON object or has not the header's cells."""
        if self.columns is None:
            return _json_object(raw)
        if len(raw) != len(self.columns):
            raise BadInput("row", f"{len(self.columns)} cells as in the header", f"{len(raw)} cells")
        return dict(zip(self.columns, raw, strict=True))

    def newly_read(self) -> int:
        """Bytes taken from the file, as packed, since the last call; 0 for a pipe."""
        at = self._file.tell() if self._file.seekable() else 0
        read, self._told = at - self._told, at
        return read

    def close(self) -> None:
        """Close the file; standard input stays open for others."""
        self._open.close()

    def _begin(self, stream: io.BufferedReader) -> Iterator[tuple[int, RawRow]]:
        head = stream.peek(_CHUNK_BYTES).removeprefix(_BYTE_ORDER_MARK).lstrip()
        if head[:1] in (b"{", b"["):
            return _lines(stream)
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        self._open.callback(text.close)
        reader = csv.reader(text, delimiter=_separator(head))
        self.columns = [column.strip() for column in next(reader, [])]
        return ((reader.line_num, cells) for cells in reader if cells)

    def _broken(self, error: Exception) -> BadInput:
        return BadInput(f"{self.name}:{self._line}", "a file that is whole from here on", str(error) or repr(error))


class _Unzstd(io.RawIOBase):
    """The unpacked bytes of zstd frames; EOFError where the last one is cut off."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._unpacked = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._unpacked:
            more = self._next_packed()
            if not more:
                return 0
            self._unpacked = self._frame.decompress(more)
        taken = self._unpacked[: len(target)]
        self._unpacked = self._unpacked[len(taken) :]
        target[: len(taken)] = taken
        return len(taken)

    def _next_packed(self) -> bytes:
        rest = self._frame.unused_data if self._frame.eof else b""
        more = rest or self._packed.read(_CHUNK_BYTES)
        if not more and not self._frame.eof:
            raise EOFError("the zstd data is cut off")
        if more and self._frame.eof:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        return more


def _open(name: str) -> io.BufferedReader:
    try:
        return open(0, "rb", closefd=False) if name == "-" else open(name, "rb")
    except OSError as error:
        raise BadInput(name, "a file that can be read", error.strerror or repr(error)) from error


def _unpacked(file: io.BufferedReader) -> io.BufferedReader:
    magic = file.peek(len(_ZSTD))
    if magic.startswith(_GZIP):
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=file)), _CHUNK_BYTES)
    if magic.startswith(_ZSTD):
        return io.BufferedReader(_Unzstd(file), _CHUNK_BYTES)
    return file


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, trimmed, without a byte order mark."""
    for number, line in enumerate(stream, start=1):
        trimmed = line.strip()
        if number == 1:
            trimmed = trimmed.removeprefix(_BYTE_ORDER_MARK)
        if trimmed:
            yield number, trimmed


def _separator(head: bytes) -> str:
    header = head.split(b"\n", 1)[0].decode(errors="replace")
    return max(_SEPARATORS, key=header.count)


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("row", "a JSON object", str(error)) from None
    if not isinstance(row, dict):
        raise BadInput("row", "a JSON object", row)
    return row
