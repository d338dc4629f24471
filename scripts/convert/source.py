"""Reads a file that nobody vouches for: every count in it is checked against the bytes that are left."""

import os
import stat
import struct


class Fault(Exception):
    """What is wrong with a file, in one line."""


class Source:
    """A file, or the part of one that begins at `start`, read front to back."""

    def __init__(self, file):
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Fault("not a file")
        self.file = file
        self.size = status.st_size
        self.place = 0

    def left(self):
        return self.size - self.place

    def seek(self, place):
        self.file.seek(place)
        self.place = place

    def take(self, length, what):
        """The next bytes; never asks for more than the file has."""
        if length > self.left():
            raise Fault(f"ends early: {what} takes {length} bytes at byte {self.place}, and {self.left()} are left")
        data = self.file.read(length)
        if len(data) != length:
            raise Fault(f"ends early: {what} at byte {self.place}")
        self.place += length
        return data

    def number(self, code, what):
        """One little-endian number, by its letter in `struct`."""
        return struct.unpack("<" + code, self.take(struct.calcsize(code), what))[0]


def shown(value):
    """A value from a file as a message shows it: printable, short, on one line."""
    if isinstance(value, (str, bytes, list)):
        value = value[:80]
    text = ascii(value).replace("\n", " ")  # an array's own lines; those of a string are escaped
    return text if len(text) <= 80 else text[:77] + "..."
