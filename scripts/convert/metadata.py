"""GGUF's metadata by name and kind: what is missing or of another kind is a Fault that says so."""

import numpy as np

from .source import Fault, shown

LEAST, MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


class Metadata:
    def __init__(self, entries):
        self.entries = entries

    def _get(self, name, kind, fits):
        if name not in self.entries:
            raise Fault(f"metadata {name} is missing")
        value = self.entries[name]
        if not fits(value):
            raise Fault(f"metadata {name} is {shown(value)} and no {kind}")
        return value

    def text(self, name):
        return self._get(name, "string", lambda v: isinstance(v, str))

    def optional_text(self, name):
        return self.text(name) if name in self.entries else None

    def texts(self, name):
        return self._get(name, "array of strings", lambda v: isinstance(v, list) and len(v) > 0)

    def numbers(self, name):
        return self._get(name, "array of whole numbers", lambda v: isinstance(v, np.ndarray) and v.dtype.kind in "iu")

    def flag(self, name):
        """False where it is missing."""
        if name not in self.entries:
            return False
        return bool(self._get(name, "bool", lambda v: isinstance(v, int) and v in (0, 1)))

    def optional_count(self, name):
        if name not in self.entries:
            return None
        return self._get(name, "whole number from 0 on", lambda v: isinstance(v, int) and v >= 0)

    def size(self, name, otherwise=None):
        """A size, from 1 to 2^31 - 1."""
        if name not in self.entries and otherwise is not None:
            return otherwise
        return self._get(name, "size from 1 to 2^31 - 1", lambda v: isinstance(v, int) and 1 <= v < 2**31)

    def positive(self, name, otherwise=None):
        """A number above 0, as the shortest decimal that is the same in float32."""
        if name not in self.entries and otherwise is not None:
            return otherwise
        value = self._get(name, "number above 0", lambda v: isinstance(v, float) and LEAST <= v <= MOST)
        return float(np.format_float_scientific(np.float32(value)))
