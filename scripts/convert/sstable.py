"""Reads a sorted string table: keys and values in blocks. It is LevelDB's file, and TensorFlow's index of tensors."""

import struct

from .protobuf import varint
from .source import Fault

FOOTER = 48
MAGIC = 0xDB4775248B80FB57
TRAILER = 5  # after each block: how it is compressed, and a checksum


def block_at(data, handle, what):
    """The bytes of a block; handle: offset and size, as numbers of seven bits a byte."""
    offset, place = varint(handle, 0, what)
    size, _ = varint(handle, place, what)
    if offset + size + TRAILER > len(data) - FOOTER:
        raise Fault(f"{what} lies at byte {offset} with {size} bytes, past the end of the table")
    if data[offset + size] != 0:
        raise Fault(f"{what} is compressed (type {data[offset + size]}), which is not read")
    return data[offset : offset + size]


def entries(block, what):
    """Keys and values. A key is what it shares with the one before it, in bytes, and the rest."""
    if len(block) < 4:
        raise Fault(f"{what} has {len(block)} bytes")
    restarts = struct.unpack("<I", block[-4:])[0]
    if restarts > (len(block) - 4) // 4:
        raise Fault(f"{what} says {restarts} restarts in {len(block)} bytes")
    end = len(block) - 4 - 4 * restarts
    place, key = 0, b""
    while place < end:
        shared, place = varint(block, place, what)
        rest, place = varint(block, place, what)
        length, place = varint(block, place, what)
        if shared > len(key) or rest + length > end - place:
            raise Fault(f"{what} has an entry past its end")
        key = key[:shared] + block[place : place + rest]
        yield key, block[place + rest : place + rest + length]
        place += rest + length


def read(data):
    """Every key and value of the table."""
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise Fault("not a table: the number that ends one is not there")
    footer = data[-FOOTER:]
    place = 0
    for _ in range(2):  # the handle of a block of facts about the table, which nothing here needs
        _, place = varint(footer, place, "the footer")
    result = {}
    for _, handle in entries(block_at(data, footer[place:], "the index block"), "the index block"):
        for key, value in entries(block_at(data, handle, "a block"), "a block"):
            if key in result:
                raise Fault(f"key {key!r} is there twice")
            result[key] = value
    return result
