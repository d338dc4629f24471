import numpy as np
import pytest


@pytest.fixture
def random():
    return np.random.default_rng(20240229)


def definition(q, k, v, bias=None, scale=None, sinks=None):
    """softmax(scale q k^T + bias) v in float64, its lse and its weights."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, groups, 1), np.repeat(v, groups, 1)
    scores = q @ k.swapaxes(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    top = scores.max(-1, keepdims=True, initial=-1e300)
    weights = np.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(np.asarray(sinks, np.float64).reshape(1, -1, 1, 1) - top)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(total > 0, weights / total, 0)
        return weights @ v, (top + np.log(total))[..., 0], weights


def forbidden(allowed):
    return np.where(allowed, 0.0, -np.inf)


def bound(q, k, v, dtype_eps=2.0**-24, scale=None):
    """What F32 sums of D products and a softmax of them may round, and one rounding to the result's type.

    A score of size s is off by (D + 2) s 2^-24 at most, a weight by that relatively, and as much again by its exponential
    and its sums; values are at most max |v|.
    """
    q, k, v = (np.abs(np.asarray(x, np.float64)) for x in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    size = (q @ np.repeat(k, groups, 1).swapaxes(-1, -2)).max() * (q.shape[-1] ** -0.5 if scale is None else abs(scale))
    return v.max() * (2 * (q.shape[-1] + 2) * size * 2.0**-24 + 16 * 2.0**-24 + dtype_eps)


def philox(counter, seed):
    """Philox 4 x 32-10 (Salmon et al. 2011): the words [4,..] of counters, four arrays, under a seed of 64 bits."""
    half = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (b >> np.uint64(32)) ^ c1 ^ k0, b & half, (a >> np.uint64(32)) ^ c3 ^ k1, a & half
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & half, (k1 + np.uint64(0xBB67AE85)) & half
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3)).astype(np.uint32)


def kept(shape, p, seed, origin=(0, 0, 0)):
    """Which weights [B,H,Tq,Tk] dropout keeps, as docs/gradients.md has it."""
    entry, head, query, key = np.ogrid[tuple(slice(0, n) for n in shape)]
    words = philox((origin[2] + query, key // 4, origin[1] + head, origin[0] + entry), seed)
    word = np.take_along_axis(words, np.broadcast_to(key % 4, words.shape[1:])[None], 0)[0]
    return (word >> 8) >= np.ceil(p * 2**24)
