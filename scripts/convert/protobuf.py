"""Reads protocol buffers' wire format: a message is numbered fields, each with a number or bytes."""

import struct

from .source import Fault

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(data, place, what):
    """The number at `place`, seven bits a byte, least first; and the place after it."""
    value = 0
    for i in range(10):
        if place + i >= len(data):
            raise Fault(f"{what} ends inside a number")
        byte = data[place + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, place + i + 1
    raise Fault(f"{what} has a number of more than ten bytes")


def fields(data, what):
    """Each field's number and its value: an int, or bytes."""
    place = 0
    while place < len(data):
        key, place = varint(data, place, what)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = varint(data, place, what)
        elif kind in (FIXED64, FIXED32, BYTES):
            length = {FIXED64: 8, FIXED32: 4}.get(kind)
            if length is None:
                length, place = varint(data, place, what)
            if length > len(data) - place:
                raise Fault(f"{what} ends inside field {number}")
            value = data[place : place + length]
            if kind != BYTES:
                value = struct.unpack("<Q" if kind == FIXED64 else "<I", value)[0]
            place += length
        else:
            raise Fault(f"{what} has a field of wire type {kind}, which is not read")
        yield number, value


def message(data, what, **kinds):
    """The fields that `kinds` names, name=(number, int or bytes): each one's last value, 0 or b"" if there is none."""
    names = {number: (name, kind) for name, (number, kind) in kinds.items()}
    values = {name: kind() for name, (_, kind) in kinds.items()}
    for number, value in fields(data, what):
        if number in names:
            name, kind = names[number]
            if not isinstance(value, kind):
                raise Fault(f"{what} has another kind of field {number} than its format")
            values[name] = value
    return values
