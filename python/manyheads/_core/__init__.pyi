from collections.abc import Sequence
import os

from . import mask as mask


class Mask:
    """
    Which keys a query may attend to, and what is added to its scores.

    Made by the functions of manyheads.mask; parts compose with |, and all of them hold at once.
    It keeps the arrays that it was made of.

    >>> mask.causal('bottom_right') | mask.window(128, 0)
    causal(bottom_right) | window(128, 0)
    """

    def __or__(self, other: Mask) -> Mask: ...

    def __repr__(self) -> str: ...

def attention(q: object, k: object, v: object, *, mask: object | None = None, scale: float | None = None, softcap: float = 0.0, sinks: object | None = None, lse: bool = False, weights: bool = False, out: object | None = None, cu_seqlens_q: object | None = None, cu_seqlens_k: object | None = None, page_table: object | None = None, k_scales: object | None = None, v_scales: object | None = None, int8_products: bool = False, num_threads: int = 0, bits: str = '', dropout_p: float = 0.0, dropout_seed: int = 0, dropout_origin: tuple[int, int, int] = (0, 0, 0)) -> object:
    """
    Multi-head attention, exactly, without a Tq x Tk matrix: softmax(scale * q k^T + bias) v.

    q [B,Hq,Tq,D], k [B,Hkv,Tk,D], v [B,Hkv,Tk,Dv], of one of float32, bfloat16 and float16; Hq is a multiple of Hkv.
    Returns out [B,Hq,Tq,Dv] of q's type, and of what came in: NumPy for NumPy, PyTorch for PyTorch.

    mask: a Mask, or an array: bool with True = attend, or float, added to the scores.
    scale: default 1 / sqrt(D). softcap: > 0 caps scores by tanh. sinks: float32 [Hq], a logit for each head.
    lse=True returns (out, lse), lse float32 [B,Hq,Tq]: the log of each row's sum of exponentials.
    weights=True returns (out, weights), weights float32 [B,Hq,Tq,Tk]; both: (out, lse, weights).
    out: an array to write to.
    cu_seqlens_q, cu_seqlens_k: packed rows q [Tq,Hq,D], k [Tk,Hkv,D], entry b from cu_seqlens[b] to cu_seqlens[b + 1].
    page_table: keys and values in pages, k [pages,Hkv,size,D]. k_scales, v_scales: of int8 keys and values.
    num_threads: default, as many as the process may use. bits: the family of bits that the result must have.
    dropout_p, dropout_seed: weights become 0 with probability p, else weight / (1 - p); lse is that of all, weights are those
    left. Which ones go follows from seed and place alone (docs/gradients.md#dropout): another step wants another seed.
    dropout_origin: (entry, head, query) of the call's first ones in the larger call that it is a part of.

    Nothing is copied or converted. Raises ValueError or TypeError that names the argument and the shapes.

    >>> x = np.ones((1, 8, 7, 64), np.float32)
    >>> attention(x, x, x, mask=mask.causal()).shape
    (1, 8, 7, 64)
    >>> out, weights = attention(x, x, x, mask=mask.causal(), weights=True)
    >>> weights[0, 0, 1, :3].tolist()
    [0.5, 0.5, 0.0]
    >>> out, weights = attention(x, x, x, dropout_p=0.5, dropout_seed=1, weights=True)
    >>> bool(abs(out - weights.sum(-1, keepdims=True)).max() < 1e-5)
    True
    """

def attention_backward(q: object, k: object, v: object, out: object, dout: object, lse: object, *, mask: object | None = None, scale: float | None = None, softcap: float = 0.0, sinks: object | None = None, dlse: object | None = None, dq: object = True, dk: object = True, dv: object = True, dbias: object = False, dsinks: object = False, dalibi_slopes: object = False, accumulate: bool = False, cu_seqlens_q: object | None = None, cu_seqlens_k: object | None = None, num_threads: int = 0, bits: str = '', dropout_p: float = 0.0, dropout_seed: int = 0, dropout_origin: tuple[int, int, int] = (0, 0, 0)) -> object:
    """
    The gradients of attention from dout, the gradient of a loss by out: a tuple of those asked for, in order.

    q, k, v and the options, dropout's too, are those of attention; out and lse are what it gave. dout has out's shape and any
    float type.
    dlse: the gradient by lse, where the loss reads lse too.
    dq, dk, dv, dbias, dsinks, dalibi_slopes: True makes it, of the type and shape of what it is the gradient of; False
    leaves it out; an array of any float type and strides is written to. dbias is that of a float mask, and sums what that
    broadcasts.
    accumulate=True adds to the arrays that are given.

    P is recomputed: nothing of size Tq x Tk is kept. Nothing else is copied or converted.

    >>> q = np.random.default_rng(0).standard_normal((1, 8, 7, 64), dtype=np.float32)
    >>> out, lse = attention(q, q, q, mask=mask.causal(), lse=True)
    >>> dq, dk, dv = attention_backward(q, q, q, out, np.ones_like(out), lse, mask=mask.causal())
    >>> bool(abs(dv.sum() - out.size) < 1e-2)
    True
    """

def attention_weights(q: object, k: object, lse: object, *, mask: object | None = None, scale: float | None = None, softcap: float = 0.0, sinks: object | None = None, out: object | None = None, num_threads: int = 0, bits: str = '', dropout_p: float = 0.0, dropout_seed: int = 0, dropout_origin: tuple[int, int, int] = (0, 0, 0)) -> object:
    """
    The weights of each head, float32 [B,Hq,Tq,Tk], from q, k and the lse that attention gave; with its dropout,
    those that are left, over 1 - p.

    >>> x = np.ones((1, 1, 2, 16), np.float32)
    >>> out, lse = attention(x, x, x, lse=True)
    >>> attention_weights(x, x, lse).tolist()
    [[[[0.5, 0.5], [0.5, 0.5]]]]
    """

def merge_attention(out_a: object, lse_a: object, out_b: object, lse_b: object, *, num_threads: int = 0) -> object:
    """
    Attention over two sets of keys from that over each: (out, lse).

    >>> x = np.ones((1, 1, 2, 16), np.float32)
    >>> a = attention(x, x, x, lse=True)
    >>> out, lse = merge_attention(*a, *a)
    >>> bool((lse - a[1] - np.log(2) < 1e-6).all())
    True
    """

class Explanation:
    """What attention would do for a call; str() tells all of it."""

    @property
    def isa(self) -> str: ...

    @property
    def bits(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def threads(self) -> int: ...

    @property
    def query_block_rows(self) -> int: ...

    @property
    def run_keys(self) -> int: ...

    @property
    def chunk_keys(self) -> int: ...

    @property
    def tasks(self) -> int: ...

    @property
    def query_blocks_together(self) -> int: ...

    @property
    def keys_together(self) -> int: ...

    @property
    def kv_splits(self) -> int: ...

    @property
    def runs(self) -> int: ...

    @property
    def skipped_runs(self) -> int: ...

    @property
    def flop(self) -> float: ...

    @property
    def bytes(self) -> float: ...

    @property
    def workspace_bytes(self) -> int: ...

    @property
    def tuning(self) -> str: ...

    def __str__(self) -> str: ...

    def __repr__(self) -> str: ...

def explain(q: object, k: object, v: object, *, mask: object | None = None, scale: float | None = None, softcap: float = 0.0, sinks: object | None = None, cu_seqlens_q: object | None = None, cu_seqlens_k: object | None = None, page_table: object | None = None, k_scales: object | None = None, v_scales: object | None = None, int8_products: bool = False, num_threads: int = 0, bits: str = '') -> Explanation:
    """
    What attention would do for a call: instruction set, family of bits, path, splits, bytes.

    >>> x = np.ones((1, 8, 7, 64), np.float32)
    >>> explain(x, x, x).path
    'fused forward, F32'
    """

class KVCache:
    """
    Keys and values of many growing sequences, for decoding and chunked prefill.

    In pages of page_size tokens (a multiple of 16), or each sequence in one piece where it is 0. dtype: 'float32',
    'bfloat16', 'float16', or 'int8' with a scale for each token and head. max_tokens bounds its memory.
    attention gives the bits of one call over all keys, however the tokens came in. Threads may share a cache.

    >>> cache = KVCache(num_kv_heads=2, head_dim=64)
    >>> s = cache.add()
    >>> x = np.ones((2, 5, 64), np.float32)
    >>> cache.append(s, x, x)
    >>> cache.attention(np.ones((1, 8, 1, 64), np.float32), [s]).shape
    (1, 8, 1, 64)
    """

    def __init__(self, *, num_kv_heads: int, head_dim: int, value_dim: int = 0, dtype: str = 'float32', page_size: int = 64, max_tokens: int = 0) -> None: ...

    def add(self) -> int:
        """A new, empty sequence."""

    def fork(self, sequence: int) -> int:
        """
        A sequence that begins with the tokens of another; pages are shared until one changes.
        """

    def remove(self, sequence: int) -> None:
        """Gives a sequence's memory back to the cache."""

    def length(self, sequence: int) -> int:
        """The tokens of a sequence."""

    def truncate(self, sequence: int, length: int) -> None:
        """Keeps the first tokens of a sequence."""

    def append(self, sequence: int, k: object, v: object, *, num_threads: int = 0) -> None:
        """
        Appends T tokens, k [Hkv,T,D] and v [Hkv,T,Dv], rounded once to the cache's type.
        """

    def attention(self, q: object, sequences: Sequence[int], *, mask: object | None = None, scale: float | None = None, softcap: float = 0.0, sinks: object | None = None, lse: bool = False, out: object | None = None, cu_seqlens_q: object | None = None, int8_products: bool = False, num_threads: int = 0, bits: str = '') -> object:
        """
        Attention of q [B,Hq,Tq,D] over the sequences, or of packed q [Tq,Hq,D] with cu_seqlens_q.
        """

    @property
    def bytes(self) -> int:
        """Bytes of all pages."""

    @property
    def pages_in_use(self) -> int:
        """Pages that hold tokens, each shared one once."""

class LayerActivations:
    """
    What MultiHeadAttention keeps of a call with keep=True, for its backward.

    >>> y, activations = MultiHeadAttention(512, 8)(np.ones((2, 7, 512), np.float32), keep=True)
    >>> activations
    LayerActivations(2 x 7 tokens, 115136 bytes)
    """

    @property
    def nbytes(self) -> int:
        """The bytes that are kept."""

    def __repr__(self) -> str: ...

class MultiHeadAttention:
    """
    Multi-head attention with its projections (Vaswani et al. 2017, section 3.2.2).

    head_i = attention(x W_q^i, x W_k^i, x W_v^i), y = concat(head_1 .. head_h) W_o. d_k = d_model / num_heads.
    Weights have PyTorch's names and layouts: state_dict() and load_state_dict() go both ways. dtype: 'float32',
    'bfloat16' or 'float16'. state_dict: weights to begin with, else Xavier-uniform ones from a fixed seed.

    >>> layer = MultiHeadAttention(512, 8)
    >>> layer.d_k
    64
    >>> y, weights = layer(np.ones((1, 7, 512), np.float32), weights=True)
    >>> y.shape, weights.shape
    ((1, 7, 512), (1, 8, 7, 7))
    """

    def __init__(self, d_model: int, num_heads: int, *, num_kv_heads: int = 0, kdim: int = 0, vdim: int = 0, bias: bool = True, add_bias_kv: bool = False, add_zero_attn: bool = False, dtype: str = 'float32', state_dict: dict | None = None) -> None: ...

    def __call__(self, query: object, key: object | None = None, value: object | None = None, *, key_padding_mask: object | None = None, attn_mask: object | None = None, mask: object | None = None, weights: bool = False, head_scale: object | None = None, out: object | None = None, num_threads: int = 0, bits: str = '', dropout_p: float = 0.0, dropout_seed: int = 0, dropout_origin: tuple[int, int, int] = (0, 0, 0), keep: bool = False) -> object:
        """
        y [B,T,d_model] of query [B,T,d_model], key [B,S,kdim] and value [B,S,vdim]; weights=True: (y, weights
        [B,H,T,S]). key_padding_mask [B,S] and attn_mask [T,S] or [B H,T,S] as PyTorch's layer takes them: True
        means ignore. mask: a Mask, or an array with True = attend. head_scale [H]: 0 switches a head off.
        dropout_p, dropout_seed, dropout_origin: of the weights, as attention has them.
        keep=True returns LayerActivations last, for backward: 4 (2 d_model + 2 num_kv_heads d_k + num_heads) bytes
        a token, 8,224 for d_model 512 and 8 heads.
        """

    def backward(self, dy: object, activations: LayerActivations, query: object, key: object | None = None, value: object | None = None, *, key_padding_mask: object | None = None, attn_mask: object | None = None, mask: object | None = None, head_scale: object | None = None, gradients: object | None = None, accumulate: bool = False, num_threads: int = 0, bits: str = '', dropout_p: float = 0.0, dropout_seed: int = 0, dropout_origin: tuple[int, int, int] = (0, 0, 0)) -> dict:
        """
        The gradients of a call that kept activations, from dy, the gradient of a loss by y: a dict of float32 arrays by name.

        query, key, value and the options, dropout's too, are those of the call. dy has y's shape and any float type.
        - 'query', 'key' and 'value'. For self-attention 'query' is all of it. An input that stood for a missing one has both.
        - 'head_scale' where it is given: how much the loss moves with each head (Michel et al. 2019).
        - The weights and biases, by their names in state_dict().
        gradients: None for all; a list of names for those alone; or a dict by name, where True makes one, False leaves it out and
        an array of float32 and any strides is written to. accumulate=True adds to the arrays that are given.

        >>> layer = MultiHeadAttention(64, 8)
        >>> x = np.random.default_rng(0).standard_normal((1, 7, 64), dtype=np.float32)
        >>> y, activations = layer(x, keep=True)
        >>> gradients = layer.backward(np.ones_like(y), activations, x)
        >>> gradients['query'].shape, gradients['in_proj_weight'].shape
        ((1, 7, 64), (192, 64))
        >>> bool(np.all(gradients['out_proj.bias'] == 7))
        True
        """

    def load_state_dict(self, state_dict: dict) -> None:
        """Takes the arrays of a torch.nn.MultiheadAttention of these sizes."""

    def state_dict(self) -> dict:
        """The weights as read-only NumPy arrays that share the layer's memory."""

    @property
    def d_model(self) -> int:
        """d_model."""

    @property
    def num_heads(self) -> int:
        """The number of heads."""

    @property
    def d_k(self) -> int:
        """The width of a head, d_model / num_heads."""

    @property
    def parameter_count(self) -> int:
        """The number of weights and biases."""

def head_count_problem(d_model: int, num_heads: int) -> str:
    """
    Why d_model does not divide by num_heads, and which counts would; '' where it does.

    >>> head_count_problem(512, 8)
    ''
    >>> head_count_problem(512, 7)[:41]
    'd_model 512 is not divisible by 7 heads ('
    """

class EncoderRun:
    """What an encoder gave: hidden states, and the weights of any head."""

    @property
    def hidden(self) -> object:
        """The last hidden states, float32 [B,T,E]; rows behind a length are 0."""

    def weights(self, layer: int, head: int, entry: int = 0) -> object:
        """
        The weights of a head for one entry, float32 [T,T], rebuilt from its q, k and lse.
        """

class Encoder:
    """
    An encoder from a folder as the hub lays it out (config.json, model.safetensors): BERT,
    RoBERTa, DistilBERT, or a decoder of the Llama family.

    dtype: what the projections keep their weights as, 'float32' or 'bfloat16'.

        encoder = mh.Encoder("models/all-MiniLM-L6-v2")
        run = encoder([[101, 4937, 102]], heads=True)
        run.hidden.shape, run.weights(layer=2, head=8).shape
    """

    def __init__(self, folder: str | os.PathLike, *, dtype: str = 'float32') -> None: ...

    def __call__(self, ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]] = [], *, heads: bool = False, num_threads: int = 0, bits: str = '') -> EncoderRun:
        """
        Runs rows of token ids, which may differ in length. heads=True keeps q, k and lse of every head.
        """

    @property
    def folder(self) -> str:
        """Where it came from."""

    @property
    def num_layers(self) -> int:
        """The number of layers."""

    @property
    def num_heads(self) -> int:
        """The heads of a layer."""

    @property
    def hidden_size(self) -> int:
        """E, the width of the hidden states."""

    @property
    def max_tokens(self) -> int:
        """The most tokens of a row."""

def available_isas() -> list[str]:
    """
    The instruction sets of this build that run here, best first.

    >>> active_isa() in available_isas()
    True
    """

def active_isa() -> str:
    """
    The instruction set that calls use.

    >>> isinstance(active_isa(), str)
    True
    """

def set_isa(name: str) -> None:
    """
    The instruction set of later calls; '' for the best.

    >>> set_isa('portable')
    >>> active_isa()
    'portable'
    >>> set_isa('')
    """

def active_bits(dtype: str = 'float32') -> str:
    """
    The family of bits of calls on such arrays: equal inputs and an equal name give equal bits on any machine.

    >>> active_bits()
    'f32-fma-1'
    """

def default_num_threads() -> int:
    """
    The threads of a call that names none.

    >>> default_num_threads() >= 1
    True
    """

class Limits:
    """
    What bounds attention on this machine, as measured; str() tells all of it.

    GFLOP/s and GB/s are 1e9 a second, a multiply-add is 2 FLOP, and a rate of what the machine lacks is 0.
    isa: the instruction set in use, which multiplies float32 and reads. threads: asked for.
    fma_gflops: float32 multiply-adds. bf16_dot_gflops, bf16_tile_gflops: dot products and tiles of bfloat16.
    int8_dot_gflops: dot products of bytes, as of int8_products.
    memory_gbs, memory_gbs_one_thread: reads of memory that no cache holds, on all threads and on one.
    l1_bytes, l2_bytes, l3_bytes: L1 for data and L2 of one core, the whole L3.

    >>> str(limits(num_threads=1)).startswith(active_isa())
    True
    """

    @property
    def isa(self) -> str: ...

    @property
    def threads(self) -> int: ...

    @property
    def fma_gflops(self) -> float: ...

    @property
    def bf16_dot_gflops(self) -> float: ...

    @property
    def bf16_tile_gflops(self) -> float: ...

    @property
    def int8_dot_gflops(self) -> float: ...

    @property
    def memory_gbs(self) -> float: ...

    @property
    def memory_gbs_one_thread(self) -> float: ...

    @property
    def l1_bytes(self) -> int: ...

    @property
    def l2_bytes(self) -> int: ...

    @property
    def l3_bytes(self) -> int: ...

    def __str__(self) -> str: ...

    def __repr__(self) -> str: ...

def limits(num_threads: int = 0) -> Limits:
    """
    Measures what bounds attention on this machine: a second or two, on as many threads, and up to 1 GB of memory.

    >>> found = limits(num_threads=1)
    >>> found.fma_gflops > 0 and found.memory_gbs > 0
    True
    """
