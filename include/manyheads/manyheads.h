/* The C door of manyheads: attention, caches and the layer, in C11 and in C++.
 *
 *   mh_attention_options options = MH_DEFAULT(mh_attention_options);
 *   options.num_threads = 4;
 *   int code = mh_attention(&q, &k, &v, &out, &options);
 *   if (code != MH_OK) fprintf(stderr, "%s\n", mh_last_error());
 *
 * What a call computes is told in full in the C++ headers beside this one; the bits are the same.
 *
 * - Structs. Each begins with its size, as the caller's header has it. Zero is the default of every other field:
 *   MH_DEFAULT makes such a struct.
 *   Fields are added at the end, and never move.
 *     - A smaller size is an older caller's: the fields it lacks are 0.
 *     - A larger one is a newer caller's. Where what this library does not know is not 0, the call is an error.
 *     - A size that is no multiple of 8, or more than 4096, is an error.
 * - Optional arguments are pointers, and NULL is their default.
 * - Memory. What you pass is read during the call and never kept; outputs are written during the call. The library
 *   frees nothing of yours. What it makes is a handle, and its mh_..._destroy takes NULL too.
 * - Texts that come back are the library's. Each lives until this thread calls the same function again. (Those of
 *   mh_version, mh_dtype_name and mh_available_isas live on.)
 * - Errors. A call returns an mh_status. mh_last_error() has the text: function, argument, shapes. On an error no
 *   output is written, but for MH_OUT_OF_MEMORY and MH_FAILED, where outputs may hold parts. Nothing throws, and
 *   nothing ends the process.
 * - Threads. Any number of calls may run at once on disjoint outputs and workspaces. A handle that is not const in a
 *   call is that call's alone. A handle may be used on any thread.
 */
#ifndef MH_MANYHEADS_H
#define MH_MANYHEADS_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header; mh_version() is that of the library. */
#define MH_VERSION_MAJOR 0
#define MH_VERSION_MINOR 1
#define MH_VERSION_PATCH 0

#if defined(__GNUC__)
#define MH_API __attribute__((visibility("default")))
#else
#define MH_API
#endif
#ifdef __cplusplus
#define MH_NOEXCEPT noexcept
#define MH_DEFAULT(type) mh_sized<type>()
extern "C++" { /* whatever it is included in */
template <class T>
inline T mh_sized() noexcept {
  T value = T();
  value.size = sizeof(T);
  return value;
}
}
extern "C" {
#else
#define MH_NOEXCEPT
/* A struct of that type with its size, and the default in all other fields. */
#define MH_DEFAULT(type) ((type){.size = sizeof(type)})
#endif

enum mh_status {
  MH_OK = 0,
  MH_INVALID_ARGUMENT = 1, /* a shape, type or value that the call cannot take */
  MH_UNSUPPORTED = 2,      /* a request this build or this machine cannot serve */
  MH_OUT_OF_MEMORY = 3,
  MH_IO = 4,             /* the operating system refused a file operation */
  MH_MALFORMED_FILE = 5, /* a file's content breaks its format */
  MH_FAILED = 6          /* anything else: your executor threw, or did not run all tasks */
};

/* The text of this thread's last call that failed; "" where none has. It lives until the thread's next that does. */
MH_API const char* mh_last_error(void) MH_NOEXCEPT;
MH_API const char* mh_version(void) MH_NOEXCEPT; /* "0.1.0" */

/* ---- Tensors ---- */

enum mh_dtype { MH_F32 = 0, MH_BF16, MH_F16, MH_F64, MH_BOOL, MH_U8, MH_I8, MH_I32, MH_I64 };

MH_API const char* mh_dtype_name(int32_t dtype) MH_NOEXCEPT; /* "F32", "BOOL", ...; "?" for another number */
MH_API size_t mh_dtype_size(int32_t dtype) MH_NOEXCEPT;      /* bytes of an element; 0 for another number */

#define MH_MAX_RANK 8

/* A view on your memory. Inputs are never written to: cast const away. A BOOL is a byte, 0 or 1. This struct is the
 * one that has no size: it never changes. */
typedef struct mh_tensor {
  void* data;    /* the element with every index 0; may be NULL where there is none */
  int32_t dtype; /* mh_dtype */
  int32_t rank;  /* 0 to MH_MAX_RANK */
  int64_t shape[MH_MAX_RANK];
  const int64_t* strides; /* one for each axis, in elements, of any sign; NULL: dense, row-major */
} mh_tensor;

/* ---- Threads and memory ---- */

typedef void (*mh_task)(void* context, int64_t index);

/* Your threads, instead of the library's pool. Results have the same bits. */
typedef struct mh_executor {
  size_t size;
  void* self;                     /* the first argument of both */
  int (*concurrency)(void* self); /* the most tasks that run at once; num_threads 0 asks for as many */
  /* Calls task(context, i) once for each i in [0, count), in any order, on any threads; returns when all are done.
   * Where some were not run the call ends as MH_FAILED. */
  void (*run)(void* self, int64_t count, mh_task task, void* context);
} mh_executor;

/* The threads of a call that gives neither num_threads nor an executor: MANYHEADS_NUM_THREADS, else OMP_NUM_THREADS,
 * else the processors of this process. An error where the first is no count. */
MH_API int mh_default_num_threads(int32_t* threads) MH_NOEXCEPT;

/* Memory that calls reuse: a call whose workspace has grown to its needs allocates nothing. Not for two calls at
 * once. */
typedef struct mh_workspace mh_workspace;
MH_API int mh_workspace_create(mh_workspace** workspace) MH_NOEXCEPT;
MH_API void mh_workspace_destroy(mh_workspace* workspace) MH_NOEXCEPT;
MH_API int mh_workspace_reserve(mh_workspace* workspace, size_t bytes) MH_NOEXCEPT; /* grows it ahead of a call */
MH_API int mh_workspace_bytes(const mh_workspace* workspace, size_t* bytes) MH_NOEXCEPT;

/* ---- Attention ---- */

/* Where the diagonal j = i + o of the scores lies, for query i and key j. Causal, window and ALiBi count from it. */
enum mh_alignment {
  MH_UNSPECIFIED = 0, /* as top-left; an error for causal with Tq != Tk, where the two readings differ */
  MH_TOP_LEFT,        /* o = 0 */
  MH_BOTTOM_RIGHT     /* o = Tk - Tq, or key_lengths[b] - Tq where key lengths are given */
};

/* Which keys a query may attend to, and what is added to its scores. All parts hold at once. */
typedef struct mh_mask {
  size_t size;
  int32_t causal;                /* not 0: allows j <= i + o */
  int32_t alignment;             /* mh_alignment */
  const int64_t* window;         /* [2]: left and right; allows i + o - left <= j <= i + o + right; -1 is unbounded */
  const mh_tensor* offsets;      /* [B] I32 or I64: o for each batch entry, instead of the alignment's */
  const mh_tensor* key_lengths;  /* [B] I32 or I64, 0 to Tk: only keys below it exist */
  const mh_tensor* key_starts;   /* [B] I32 or I64, 0 to key_lengths[b]: keys before it do not exist (left padding) */
  const mh_tensor* q_documents;  /* [B,Tq] I32 or I64: a query attends to keys of equal id */
  const mh_tensor* k_documents;  /* [B,Tk] I32 or I64 */
  const mh_tensor* allowed;      /* BOOL, 1 = attend; broadcasts from the right to [B,Hq,Tq,Tk] */
  const mh_tensor* ignored;      /* BOOL, 1 = ignore; broadcasts the same. Not beside `allowed` */
  const mh_tensor* bias;         /* F32 or q's type, added to the scaled scores; broadcasts the same; -inf forbids */
  const mh_tensor* alibi_slopes; /* [Hq] F32: adds -slope * |j - i - o| */
} mh_mask;

/* What attention over a part of the keys leaves for the rest. See mh_merge_row_states. */
typedef struct mh_row_states mh_row_states;

/* Dropout: a weight becomes 0 with probability p, else weight / (1 - p). lse is that of all of them. Query i and key j of
 * head h and entry b take word j % 4 of Philox4x32-10 with the seed as key, its lower half first, and the counter
 * (first_query + i, j / 4, first_head + h, first_entry + b); the weight goes where word / 2^32 < p, both in steps of 2^-24. One seed drops the same
 * weights forward and backward, at any instruction set and for any threads. */
typedef struct mh_dropout {
  size_t size;
  double p; /* 0 to 1 */
  uint64_t seed;
  int64_t first_query; /* where a call is a part of a larger one: its first query, */
  int64_t first_head;  /* query head */
  int64_t first_entry; /* and entry there */
} mh_dropout;

typedef struct mh_attention_options {
  size_t size;
  const mh_mask* mask;
  const double* scale;       /* NULL: 1/sqrt(D); else any finite value, 0 too */
  double softcap;            /* > 0: scores become softcap * tanh(score / softcap), before bias and mask */
  const mh_tensor* sinks;    /* [Hq] F32: a logit for each head that adds mass to the softmax and no value */
  const mh_tensor* lse;      /* [B,Hq,Tq] F32, out: natural log of the sum of exp of each row's scores */
  mh_row_states* row_states; /* out: of this call, a part of a longer one; not with cu_seqlens */
  int32_t num_threads;       /* 0: mh_default_num_threads(), or as many as the executor runs at once */
  int32_t int8_products;     /* not 0: multiplies integers, for I8 keys and values; faster and coarser */
  const mh_executor* executor;
  mh_workspace* workspace;       /* NULL: memory of the call's own */
  const mh_tensor* cu_seqlens_q; /* [B+1] I32 or I64, ascending from 0: packed queries */
  const mh_tensor* cu_seqlens_k; /* the same for keys and values */
  const mh_tensor* page_table;   /* [B,N] I32 or I64: paged keys and values */
  const mh_tensor* k_scales;     /* F32, of k's shape less the last axis, for I8 keys */
  const mh_tensor* v_scales;     /* the same for I8 values */
  const char* bits;              /* the family of bits (mh_active_bits) that the call must have; NULL: the fastest's */
  const mh_dropout* dropout;     /* of the weights, behind the softmax; not with paged or I8 keys; NULL: none */
} mh_attention_options;

/* Fused attention for each head, without memory for Tq x Tk scores.
 *
 *   out = softmax(scale * q k^T + bias) v
 *
 * Shapes: q [B,Hq,Tq,D], k [B,Hkv,Tk,D], v [B,Hkv,Tk,Dv], out [B,Hq,Tq,Dv].
 * - Types: q, k and v share one of F32, BF16 and F16; out has any of these. k and v may both be I8, with scales.
 * - Heads: Hq is a multiple of Hkv; query head h reads key/value head h / (Hq / Hkv).
 * - out and lse overlap no input and not each other.
 * - A row whose every key is forbidden is 0, its lse -inf.
 *
 * Packed: cu_seqlens_q makes q [Tq,Hq,D], out [Tq,Hq,Dv], lse [Hq,Tq]; cu_seqlens_k makes k [Tk,Hkv,D], v [Tk,Hkv,Dv].
 * Entry b is rows cu_seqlens[b] to cu_seqlens[b+1].
 * Paged: k [pages,Hkv,size,D], v [pages,Hkv,size,Dv]; key j of entry b is row j % size of page
 * page_table[b, j / size], with mask key_lengths [B]; size is a multiple of 16.
 *
 * Allocates a workspace unless given one: at most some MB for each thread. */
MH_API int mh_attention(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                        const mh_attention_options* options) MH_NOEXCEPT;

/* Attention probabilities of each head, weights [B,Hq,Tq,Tk] F32, from the lse that mh_attention gave for the same
 * options. options->lse is not used. Packed and paged calls are errors. */
MH_API int mh_attention_weights(const mh_tensor* q, const mh_tensor* k, const mh_tensor* lse, const mh_tensor* weights,
                                const mh_attention_options* options) MH_NOEXCEPT;

/* Bytes that mh_attention takes from a workspace for these arguments. */
MH_API int mh_attention_workspace_size(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                                       const mh_attention_options* options, size_t* bytes) MH_NOEXCEPT;

/* What mh_attention would do for a call. The texts live until this thread calls mh_explain again. */
typedef struct mh_explanation {
  size_t size;
  const char* text;              /* all of it in one sentence */
  const char* isa;               /* instruction set, as mh_active_isa names it */
  const char* bits;              /* family of bits, as mh_active_bits names it */
  const char* path;              /* "fused forward, F32" ... */
  const char* tuning;            /* figures of this machine, as MANYHEADS_TUNING takes them */
  int64_t threads;               /* threads asked of the executor or the pool */
  int64_t query_block_rows;      /* most queries that pass over the keys together */
  int64_t run_keys;              /* keys summed in one run */
  int64_t chunk_keys;            /* keys summed in one chunk */
  int64_t tasks;                 /* pieces of work for the threads */
  int64_t query_blocks_together; /* query blocks of one task that share each part of the keys */
  int64_t keys_together;         /* keys of such a part where L2 cannot hold all of them; else 0 */
  int64_t kv_splits;             /* splits of a query block's keys, where blocks are few */
  int64_t runs;                  /* runs of keys over all query blocks */
  int64_t skipped_runs;          /* runs that the mask rules out and nobody reads */
  double flop;                   /* 2 (D + Dv) for each query and key of the runs that are read */
  double bytes;                  /* inputs read and outputs written, once */
  size_t workspace_bytes;
} mh_explanation;

MH_API int mh_explain(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                      const mh_attention_options* options, mh_explanation* explanation) MH_NOEXCEPT;

/* The gradients of a call. Each may be NULL: those out are then not computed.
 * They are F32, BF16 or F16, of any strides, and overlap no input and not each other. */
typedef struct mh_attention_gradients {
  size_t size;
  const mh_tensor* dlse;          /* in: the gradient by lse, F32 of its shape, where the loss reads lse too */
  const mh_tensor* dq;            /* out: as q */
  const mh_tensor* dk;            /* as k */
  const mh_tensor* dv;            /* as v */
  const mh_tensor* dbias;         /* of the bias's own shape: what the bias broadcasts is summed */
  const mh_tensor* dsinks;        /* [Hq] F32 */
  const mh_tensor* dalibi_slopes; /* [Hq] F32 */
  int32_t accumulate;             /* not 0: adds to what they hold; each sum is rounded once */
  int32_t reserved;               /* 0 */
} mh_attention_gradients;

/* The backward of mh_attention: the gradients of a loss from dout, its gradient by out.
 *
 *   P = exp(score - lse),  dP = dout v^T,  dS = P (dP - delta),  delta = sum over Dv of dout out, less dlse
 *   dv = P^T dout,  dq = scale dS k,  dk = scale dS^T q,  dbias = dS
 *
 * - q, k, v and options are those of mh_attention; out and lse what it gave. dout has out's shape, any float type and
 *   any strides, 0 among them. options->lse and options->row_states are not used.
 * - Grouped heads: dk and dv are summed over the query heads of each key/value head.
 * - A row whose every key is forbidden has and gives gradients of 0.
 * - A row of which a score leaves F32's range, which mh_attention has in float64, gives NaN in its dq and in dk and dv
 *   of the keys that it sees. It is no error. Other rows keep their bits.
 * - Paged and I8 keys are errors: they have no gradient.
 *
 * Allocates a workspace unless given one: some MB for each thread, and two floats for each element of dq of the heads
 * under way, as many as threads. */
MH_API int mh_attention_backward(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                                 const mh_tensor* dout, const mh_tensor* lse, const mh_attention_gradients* gradients,
                                 const mh_attention_options* options) MH_NOEXCEPT;

/* Bytes that mh_attention_backward takes from a workspace for these arguments. */
MH_API int mh_attention_backward_workspace_size(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v,
                                                const mh_tensor* out, const mh_tensor* dout, const mh_tensor* lse,
                                                const mh_attention_gradients* gradients,
                                                const mh_attention_options* options, size_t* bytes) MH_NOEXCEPT;

/* What mh_attention_backward would do for a call; flop counts 2 (3 D + 2 Dv). The texts live until this thread calls
 * mh_explain_backward again. */
MH_API int mh_explain_backward(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                               const mh_tensor* dout, const mh_tensor* lse, const mh_attention_gradients* gradients,
                               const mh_attention_options* options, mh_explanation* explanation) MH_NOEXCEPT;

/* Combines attention over two sets of keys, say a shared prefix and the rest.
 *
 *   out = (exp(lse_a) out_a + exp(lse_b) out_b) / (exp(lse_a) + exp(lse_b)),  lse = the log of the denominator
 *
 * out_a, out_b, out [...,Dv] of F32, BF16 or F16; lse_a, lse_b, lse [...] F32. lse may be NULL. out and lse may be
 * those of a. Allocates nothing. num_threads and executor as in mh_attention_options. */
MH_API int mh_merge_attention(const mh_tensor* out_a, const mh_tensor* lse_a, const mh_tensor* out_b,
                              const mh_tensor* lse_b, const mh_tensor* out, const mh_tensor* lse, int32_t num_threads,
                              const mh_executor* executor) MH_NOEXCEPT;

/* Room for the row states of a part of the keys: `keys` of them, behind keys_before, a multiple of 512. Every part but
 * the last has whole 512s. All zero; mh_attention fills it (options.row_states). */
MH_API int mh_row_states_create(int64_t keys_before, int64_t keys, int64_t batch, int64_t q_heads, int64_t tq,
                                int64_t dv, mh_row_states** states) MH_NOEXCEPT;
MH_API void mh_row_states_destroy(mh_row_states* states) MH_NOEXCEPT;
/* Their memory, dense, to be sent to another machine or filled from one: max, sum [S,B,Hq,Tq] and output
 * [S,B,Hq,Tq,Dv], F32. It lives as long as the handle. */
MH_API int mh_row_states_tensors(mh_row_states* states, mh_tensor* max, mh_tensor* sum, mh_tensor* output) MH_NOEXCEPT;

/* Combines the row states of `count` parts, ascending and without a gap, to the bits of one call over all keys.
 * out [B,Hq,Tq,Dv] of F32, BF16 or F16; lse [B,Hq,Tq] F32 and sinks [Hq] F32 may be NULL. */
MH_API int mh_merge_row_states(const mh_row_states* const* parts, size_t count, const mh_tensor* out,
                               const mh_tensor* lse, const mh_tensor* sinks, int32_t num_threads,
                               const mh_executor* executor) MH_NOEXCEPT;

/* ---- Cache: keys and values of many growing sequences ---- */

typedef struct mh_kv_cache mh_kv_cache;

typedef struct mh_kv_cache_options {
  size_t size;
  int64_t num_kv_heads; /* 0: 1 */
  int64_t head_dim;     /* D of the keys */
  int64_t value_dim;    /* Dv of the values; 0: head_dim */
  int64_t page_size;    /* tokens in a page, a multiple of 16; 0: 64 */
  int64_t max_tokens;   /* bound on the tokens that memory is taken for; 0: none */
  int32_t dtype;        /* MH_F32, MH_BF16, MH_F16; or MH_I8, each token's head with a scale of its own */
  int32_t in_one_piece; /* not 0: no pages (page_size is 0 then); each sequence has room for the longest */
} mh_kv_cache_options;

MH_API int mh_kv_cache_create(const mh_kv_cache_options* options, mh_kv_cache** cache) MH_NOEXCEPT;
MH_API void mh_kv_cache_destroy(mh_kv_cache* cache) MH_NOEXCEPT;
MH_API int mh_kv_cache_add(mh_kv_cache* cache, int64_t* sequence) MH_NOEXCEPT; /* an empty one; no id comes twice */
/* A sequence that begins with the tokens of another, and shares its pages until one of the two writes to them. */
MH_API int mh_kv_cache_fork(mh_kv_cache* cache, int64_t sequence, int64_t* copy) MH_NOEXCEPT;
MH_API int mh_kv_cache_remove(mh_kv_cache* cache, int64_t sequence) MH_NOEXCEPT;
MH_API int mh_kv_cache_length(const mh_kv_cache* cache, int64_t sequence, int64_t* tokens) MH_NOEXCEPT;
MH_API int mh_kv_cache_truncate(mh_kv_cache* cache, int64_t sequence, int64_t tokens) MH_NOEXCEPT; /* keeps the first */
/* Appends T tokens, rounded once to the cache's type: k [Hkv,T,D], v [Hkv,T,Dv] of F32, BF16 or F16. On an error the
 * cache is as it was. Allocates pages where they run out. */
MH_API int mh_kv_cache_append(mh_kv_cache* cache, int64_t sequence, const mh_tensor* k, const mh_tensor* v,
                              int32_t num_threads, const mh_executor* executor) MH_NOEXCEPT;
/* mh_attention of q [B,Hq,Tq,D], or packed, over `count` = B sequences. page_table, k_scales, v_scales and the mask's
 * key_lengths are the cache's: giving them is an error. Given a workspace that has grown, it allocates nothing. */
MH_API int mh_kv_cache_attention(const mh_tensor* q, const mh_kv_cache* cache, const int64_t* sequences, size_t count,
                                 const mh_tensor* out, const mh_attention_options* options) MH_NOEXCEPT;
MH_API int mh_kv_cache_bytes(const mh_kv_cache* cache, size_t* bytes) MH_NOEXCEPT; /* of all pages, used or not */
MH_API int mh_kv_cache_pages_in_use(const mh_kv_cache* cache, int64_t* pages) MH_NOEXCEPT; /* each shared one once */

/* ---- Layer: projections and attention, as torch.nn.MultiheadAttention ---- */

typedef struct mh_layer mh_layer;

typedef struct mh_layer_config {
  size_t size;
  int64_t d_model;
  int64_t num_heads;     /* divides d_model */
  int64_t num_kv_heads;  /* 0: num_heads. Fewer: consecutive heads share keys and values */
  int64_t kdim;          /* width of the key input; 0: d_model */
  int64_t vdim;          /* width of the value input; 0: d_model */
  int32_t no_bias;       /* not 0: without in_proj_bias and out_proj.bias */
  int32_t add_bias_kv;   /* not 0: one learned key and value at the end of the sequence (bias_k, bias_v) */
  int32_t add_zero_attn; /* not 0: one zero key and value at the end of the sequence */
  int32_t dtype;         /* of the weights, as loaded and given back: MH_F32, MH_BF16, MH_F16 */
} mh_layer_config;

/* A layer with Xavier-uniform weights from a fixed seed and zero biases. */
MH_API int mh_layer_create(const mh_layer_config* config, mh_layer** layer) MH_NOEXCEPT;
/* A layer of `count` named tensors, those of a torch.nn.MultiheadAttention of these sizes, dense, of F32, BF16 or F16:
 * - in_proj_weight [3 d_model, d_model], or q_proj_weight [d_model, d_model], k_proj_weight [num_kv_heads d_k, kdim],
 *   v_proj_weight [num_kv_heads d_k, vdim];
 * - in_proj_bias; bias_k and bias_v [1,1,num_kv_heads d_k]; out_proj.weight [d_model, d_model]; out_proj.bias.
 * They are copied. */
MH_API int mh_layer_create_from(const mh_layer_config* config, const char* const* names, const mh_tensor* tensors,
                                size_t count, mh_layer** layer) MH_NOEXCEPT;
MH_API void mh_layer_destroy(mh_layer* layer) MH_NOEXCEPT;
/* Takes other tensors, as mh_layer_create_from does. On any error the layer is unchanged. */
MH_API int mh_layer_load_state_dict(mh_layer* layer, const char* const* names, const mh_tensor* tensors,
                                    size_t count) MH_NOEXCEPT;
/* The names of the layer's tensors, and one of them, of the config's type, dense, in the layer's memory: read-only, and
 * there until other tensors are loaded. */
MH_API int mh_layer_tensor_count(const mh_layer* layer, size_t* count) MH_NOEXCEPT;
MH_API int mh_layer_tensor_name(const mh_layer* layer, size_t index, const char** name) MH_NOEXCEPT;
MH_API int mh_layer_tensor(const mh_layer* layer, const char* name, mh_tensor* tensor) MH_NOEXCEPT;
MH_API int mh_layer_get_config(const mh_layer* layer, mh_layer_config* config) MH_NOEXCEPT; /* with widths for zeros */
MH_API int mh_layer_parameter_count(const mh_layer* layer, int64_t* count) MH_NOEXCEPT;

/* What a forward in training keeps for mh_layer_backward: 4 (2 d_model + 2 num_kv_heads d_k + num_heads) bytes a token.
 * A forward of other sizes makes its memory anew. Not for two calls at once. */
typedef struct mh_layer_activations mh_layer_activations;
MH_API int mh_layer_activations_create(mh_layer_activations** activations) MH_NOEXCEPT;
MH_API void mh_layer_activations_destroy(mh_layer_activations* activations) MH_NOEXCEPT;

typedef struct mh_layer_options {
  size_t size;
  const mh_tensor* key_padding_mask; /* [B,S], BOOL (1 = ignore) or float (added to the scores) */
  const mh_tensor* attn_mask;        /* [T,S] or [B*num_heads,T,S], the same */
  const mh_mask* mask;               /* further parts, as mh_attention takes them */
  const mh_tensor* weights;          /* [B,num_heads,T,S] F32, out: attention probabilities; S counts added keys too */
  const mh_tensor* head_scale;       /* [num_heads] F32: factor of each head's output; 0 switches a head off */
  int32_t num_threads;               /* as in mh_attention_options */
  int32_t reserved;                  /* 0 */
  const mh_executor* executor;
  mh_workspace* workspace;
  const char* bits;
  mh_layer_activations* activations; /* of mh_layer_forward, out: for mh_layer_backward. NULL: nothing is kept */
  const mh_dropout* dropout;         /* of the weights, as in mh_attention_options; `weights` are those left */
} mh_layer_options;

/* query [B,T,d_model], key [B,S,kdim], value [B,S,vdim], of one of F32, BF16 and F16 -> y [B,T,d_model], of any of
 * them. Self-attention: key and value are NULL. y may lie on an input; weights overlaps nothing else. */
MH_API int mh_layer_forward(const mh_layer* layer, const mh_tensor* query, const mh_tensor* key, const mh_tensor* value,
                            const mh_tensor* y, const mh_layer_options* options) MH_NOEXCEPT;

/* The gradients of a call, F32, out. Each may be NULL or left out: it is then not computed. They overlap no input and
 * not each other. */
typedef struct mh_layer_gradients {
  size_t size;
  const mh_tensor* dquery;      /* as query; of self-attention all of dx */
  const mh_tensor* dkey;        /* as key; not of self-attention */
  const mh_tensor* dvalue;      /* as value; not of self-attention */
  const mh_tensor* dhead_scale; /* [num_heads], with head_scale */
  const char* const* names;     /* of `count` tensors of the layer, as mh_layer_tensor_name gives them */
  const mh_tensor* parameters;  /* the gradients of those, each of its tensor's shape */
  size_t count;
  int32_t accumulate; /* not 0: adds to what they hold */
  int32_t reserved;   /* 0 */
} mh_layer_gradients;

/* The backward of an mh_layer_forward that kept `activations`: the gradients of a loss from dy, its gradient by y.
 * - Inputs and options are those of the forward; weights, activations and bits of other products than F32 are not used.
 *   bits "f32-tiles-1" are an error: gradients are not multiplied through tiles.
 * - dy [B,T,d_model] is F32, BF16 or F16, of any strides. Sums are F32, in an order that threads do not change.
 * - Float masks have no gradient here; mh_attention_backward gives that of a bias.
 * Allocates the transposed weights, and a workspace unless given one. */
MH_API int mh_layer_backward(const mh_layer* layer, const mh_tensor* query, const mh_tensor* key,
                             const mh_tensor* value, const mh_layer_activations* activations, const mh_tensor* dy,
                             const mh_layer_gradients* gradients, const mh_layer_options* options) MH_NOEXCEPT;

/* Why num_heads does not divide d_model, and which counts would; "" where it does. */
MH_API int mh_head_count_problem(int64_t d_model, int64_t num_heads, const char** problem) MH_NOEXCEPT;

/* ---- The machine ---- */

/* The instruction sets that this build holds and this machine runs, best first: "avx512", "avx2", ... */
MH_API int mh_available_isas(const char* const** names, size_t* count) MH_NOEXCEPT;
/* The one that calls use: that of mh_set_isa, else of MANYHEADS_ISA, else the best. An error where the variable names
 * none of them. */
MH_API int mh_active_isa(const char** name) MH_NOEXCEPT;
/* Chooses it for all later calls of this process; NULL or "" goes back to the default. Not while another call runs. */
MH_API int mh_set_isa(const char* name) MH_NOEXCEPT;
/* The family of bits of calls on tensors of that type; MH_I8 asks for int8_products. Equal inputs and one family give
 * equal bits on every machine, whatever the threads, the batch and the strides. */
MH_API int mh_active_bits(int32_t dtype, const char** family) MH_NOEXCEPT;

/* What bounds attention on this machine, as measured. GFLOP/s and GB/s: 1e9 a second, a multiply-add is 2 FLOP. A rate
 * of what the machine lacks is 0. */
typedef struct mh_machine_limits {
  size_t size;
  const char* isa;              /* the instruction set in use, which multiplies F32 and reads; lives as all texts do */
  int64_t threads;              /* asked of the executor or the pool, for all rates but the one of one thread */
  double fma_gflops;            /* F32 multiply-adds */
  double bf16_dot_gflops;       /* dot products of BF16 (AVX-512 BF16) */
  double bf16_tile_gflops;      /* products of BF16 tiles (AMX) */
  double int8_dot_gflops;       /* dot products of bytes (AVX-512 VNNI), as of int8_products */
  double memory_gbs;            /* reads of memory that no cache holds */
  double memory_gbs_one_thread; /* the same on one thread */
  int64_t l1_bytes;             /* caches: L1 for data and L2 of one core, the whole L3 */
  int64_t l2_bytes;
  int64_t l3_bytes;
} mh_machine_limits;

/* Measures them, in a second or two on all threads. Each rate is the best of up to five samples; whatever else runs
 * lowers it. Keep the result, nothing is kept here. Allocates the memory that it reads, twice the last cache (256 MB to
 * 1 GB, an eighth of the machine's at most), and frees it. num_threads and executor as in mh_attention_options. */
MH_API int mh_limits(int32_t num_threads, const mh_executor* executor, mh_machine_limits* limits) MH_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif
