"""Masks, to be composed with |."""

import _core


def causal(alignment: object | None = None) -> _core.Mask:
    """
    A query at i attends to keys up to i + o. o is 0 for 'top_left', Tk - Tq for 'bottom_right'; one of the two must
    be named where Tq and Tk differ.

    >>> mask.causal()
    causal()
    """

def window(left: object | None, right: object | None, alignment: object | None = None) -> _core.Mask:
    """
    Keys from left before a query to right behind it; None is no bound.

    >>> mask.window(4, None)
    window(4, None)
    """

def align(alignment: object) -> _core.Mask:
    """
    Where the diagonal lies, for windows and ALiBi.

    >>> mask.align('top_left')
    align(top_left)
    """

def offsets(per_batch: object) -> _core.Mask:
    """
    o of each batch entry, int32 or int64 [B], instead of the alignment's.

    >>> mask.offsets(np.array([3, 5]))
    offsets(int64[2])
    """

def key_lengths(per_batch: object) -> _core.Mask:
    """
    The keys of each batch entry, int32 or int64 [B]: only those before it exist.

    >>> mask.key_lengths(np.array([7, 3]))
    key_lengths(int64[2])
    """

def key_starts(per_batch: object) -> _core.Mask:
    """
    The first key of each batch entry, int32 or int64 [B], for batches padded on the left.

    >>> mask.key_starts(np.array([0, 4]))
    key_starts(int64[2])
    """

def allowed(mask: object) -> _core.Mask:
    """
    bool, True = attend; broadcasts from the right to [B,Hq,Tq,Tk].

    >>> mask.allowed(np.ones((4, 4), bool))
    allowed(bool[4,4])
    """

def ignored(mask: object) -> _core.Mask:
    """
    bool, True = ignore; broadcasts from the right to [B,Hq,Tq,Tk].

    >>> mask.ignored(np.zeros((4, 4), bool))
    ignored(bool[4,4])
    """

def bias(added: object) -> _core.Mask:
    """
    float32 or the type of q, added to the scaled scores; broadcasts the same; -inf forbids.

    >>> mask.bias(np.zeros((4, 4), np.float32))
    bias(float32[4,4])
    """

def alibi(slopes: object) -> _core.Mask:
    """
    ALiBi: adds -slope |j - i - o|, slopes float32 [Hq].

    >>> mask.alibi(np.array([0.5, 0.25], np.float32))
    alibi(float32[2])
    """

def documents(query_ids: object, key_ids: object) -> _core.Mask:
    """
    A query attends to keys of its own document: int32 or int64 [B,Tq] and [B,Tk].

    >>> ids = np.array([[1, 1, 2]])
    >>> mask.documents(ids, ids)
    documents(int64[1,3], int64[1,3])
    """
