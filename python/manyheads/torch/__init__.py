"""PyTorch's attention by manyheads, on the CPU, PyTorch 2.10 and newer.

    import manyheads.torch
    with manyheads.torch.use():
        y = model(x)            # F.scaled_dot_product_attention is taken, however it was imported

use() takes F.scaled_dot_product_attention in every thread, eager, compiled and exported, with gradients; the fast paths of
nn.MultiheadAttention and nn.TransformerEncoderLayer; and F.multi_head_attention_forward with weights, where it is called
by that name (nn.MultiheadAttention does; a name bound by from ... import before use() stays PyTorch's). report() says
what was taken, what PyTorch kept, and why. MultiheadAttention is the whole layer in place of nn.MultiheadAttention. scaled_dot_product_attention is the function itself, with lse and weights.
The name stands in PyTorch's registry too: torch.nn.attention.activate_flash_attention_impl("manyheads").
"""

import contextlib as _contextlib
import os as _os
import threading as _threading

import torch as _torch

from .. import _core

_version = tuple(int(part) for part in _torch.__version__.split("+")[0].split(".")[:2])
if _version < (2, 10):
    raise ImportError(f"manyheads.torch: PyTorch {_torch.__version__} is installed, 2.10 or newer is needed")

_core._torch_start(_os.path.join(_os.path.dirname(_torch.__file__), "lib", "libtorch_cpu.so"))

from . import _multihead, _ops  # noqa: E402,F401  (_ops: fake kernels and gradients of the ops)
from ._functions import scaled_dot_product_attention  # noqa: E402
from ._layer import MultiheadAttention  # noqa: E402

__all__ = ["MultiheadAttention", "report", "scaled_dot_product_attention", "start", "stop", "use"]


_lock = _threading.Lock()
_TAG = f"manyheads {_core.__version__}"


def start(backward="manyheads"):
    """Takes PyTorch's attention until stop(); each start() needs one.

    backward="pytorch" leaves gradients to PyTorch's own backward, for comparison; what it does not know is a
    NotImplementedError then. Both at once are a ValueError.

    What torch.compile compiles from here on is kept apart in its caches. A function that was compiled before keeps what
    it was compiled to.
    """
    if backward not in ("manyheads", "pytorch"):
        raise ValueError(f"start: backward is {backward!r}, expected 'manyheads' or 'pytorch'")
    by_pytorch = backward == "pytorch"
    with _lock:
        _core._torch_begin(by_pytorch)
        _multihead.begin(by_pytorch)
        tag = _torch.compiler.config.cache_key_tag
        if _TAG not in tag:
            _torch.compiler.config.cache_key_tag = tag + _TAG


def stop():
    """Gives back what start() took."""
    with _lock:
        _core._torch_end()
        if _core._torch_active():
            return
        _multihead.end()
        _torch.compiler.config.cache_key_tag = _torch.compiler.config.cache_key_tag.replace(_TAG, "")


@_contextlib.contextmanager
def use(backward="manyheads"):
    """Takes PyTorch's attention inside a with block, in every thread. Blocks of one backward may nest; see start().

    >>> import torch
    >>> x = torch.ones(1, 8, 7, 64)
    >>> with use():
    ...     torch.nn.functional.scaled_dot_product_attention(x, x, x).shape
    torch.Size([1, 8, 7, 64])
    """
    start(backward)
    try:
        yield
    finally:
        stop()


def report(reset=False):
    """How many calls were taken, and how many PyTorch kept, by reason.

    >>> report(reset=True) is not None
    True
    """
    return _core._torch_report(reset)


class _Handle:
    def remove(self):
        stop()


def _register():
    start()
    return _Handle()


_torch.nn.attention.register_flash_attention_impl("manyheads", register_fn=_register)
