"""Parser for the wire format of protobuf, without the protobuf library; values are views, not copies.

protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, I64, LENGTH, I32 = 0, 1, 2, 5
"""Wire types. Groups are rejected; ONNX has none."""


class Message:
    """A serialised message or submessage.

    budget: [number of fields that may still be read], shared by all messages of a file. It limits the time: a small
        file can have millions of fields, and each takes microseconds.
    """

    def __init__(self, content: memoryview, budget: list[int]) -> None:
        self.content = content
        self._budget = budget

    def fields(self) -> Iterator[tuple[int, int, int | memoryview]]:
        """Number, wire type and value of each field: an int for VARINT, otherwise the bytes. Raises ValueError for
        truncated data, groups, and an exhausted budget."""
        content, position, size = self.content, 0, len(self.content)
        while position < size:
            self._budget[0] -= 1
            if self._budget[0] < 0:
                raise ValueError("it consists of more parts than any network of this project")
            key, position = _varint(content, position)
            number, kind = key >> 3, key & 7
            if kind == VARINT:
                value, position = _varint(content, position)
                yield number, kind, value
                continue
            if kind == LENGTH:
                length, position = _varint(content, position)
            elif kind in (I64, I32):
                length = 8 if kind == I64 else 4
            else:
                raise ValueError("it is cut off, or another kind of file")
            if not number or length > size - position:
                raise ValueError("it is cut off, or another kind of file")
            yield number, kind, content[position : position + length]
            position += length

    def inside(self, content: int | memoryview) -> Message:
        """The submessage in a field's value. Raises ValueError for a number."""
        if isinstance(content, int):
            raise ValueError("one of its fields is a number, expected a message")
        return Message(content, self._budget)


def varints(content: memoryview) -> Iterator[int]:
    """The integers of a packed field. Raises ValueError for truncated data."""
    position = 0
    while position < len(content):
        value, position = _varint(content, position)
        yield value


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    if position < len(content) and content[position] < 128:  # fast path for the common case
        return content[position], position + 1
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            break
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
    raise ValueError("it is cut off, or another kind of file")
