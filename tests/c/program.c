/* A program that uses every part of the C door, in the C that is also C++. Compiled as both, and by the first header,
 * tests/c/program_test.cpp runs it. With a main it is the consumer of the installed package. */
#include <manyheads/manyheads.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char wrong[1024];

/* Keeps the first thing that is wrong. */
static void expect(int holds, const char* what, int line) {
  if (holds || wrong[0] != '\0') return;
  snprintf(wrong, sizeof wrong, "line %d: %s (last error: \"%s\")", line, what, mh_last_error());
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)
#define OK(call) expect((call) == MH_OK, #call, __LINE__)

static mh_tensor tensor4(void* data, int64_t a, int64_t b, int64_t c, int64_t d) {
  mh_tensor tensor = {data, MH_F32, 4, {a, b, c, d}, NULL};
  return tensor;
}
static mh_tensor tensor3(void* data, int64_t a, int64_t b, int64_t c) {
  mh_tensor tensor = {data, MH_F32, 3, {a, b, c}, NULL};
  return tensor;
}

static void fill(float* data, size_t count, unsigned seed) {
  for (size_t i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    data[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
}

enum { HEADS = 2, TOKENS = 192, WIDTH = 32, COUNT = HEADS * TOKENS * WIDTH };
static float q_data[COUNT], k_data[COUNT], v_data[COUNT], out_data[COUNT], again_data[COUNT];
static float lse_data[HEADS * TOKENS], weights_data[HEADS * TOKENS * TOKENS];

/* An executor that runs tasks backwards on the calling thread, and counts them. */
static int two_at_once(void* self) {
  (void)self;
  return 2;
}
static void run_backwards(void* self, int64_t count, mh_task task, void* context) {
  for (int64_t i = count - 1; i >= 0; --i) task(context, i);
  *(int64_t*)self += count;
}

static void attend(void) {
  mh_tensor q = tensor4(q_data, 1, HEADS, TOKENS, WIDTH), k = tensor4(k_data, 1, HEADS, TOKENS, WIDTH);
  mh_tensor v = tensor4(v_data, 1, HEADS, TOKENS, WIDTH), out = tensor4(out_data, 1, HEADS, TOKENS, WIDTH);
  mh_tensor again = tensor4(again_data, 1, HEADS, TOKENS, WIDTH), lse = tensor3(lse_data, 1, HEADS, TOKENS);
  mh_tensor weights = tensor4(weights_data, 1, HEADS, TOKENS, TOKENS);
  mh_mask mask = MH_DEFAULT(mh_mask);
  mask.causal = 1;
  mh_attention_options options = MH_DEFAULT(mh_attention_options);
  options.mask = &mask;
  options.lse = &lse;
  OK(mh_attention(&q, &k, &v, &out, &options));
  OK(mh_attention_weights(&q, &k, &lse, &weights, &options));
  /* The first query sees one key; each row of weights adds up to 1, and gives its output. */
  EXPECT(out_data[0] == v_data[0] && weights_data[0] == 1.0f && weights_data[1] == 0.0f);
  for (int i = 0; i < TOKENS; ++i) {
    double sum = 0, value = 0;
    for (int j = 0; j < TOKENS; ++j) {
      sum += weights_data[i * TOKENS + j];
      value += (double)weights_data[i * TOKENS + j] * v_data[j * WIDTH];
    }
    EXPECT(fabs(sum - 1) < 1e-5 && fabs(value - out_data[i * WIDTH]) < 1e-5);
  }

  /* The same bits on the caller's threads, in a workspace, and by strides of a [B,T,H,D] layout of one's own. */
  int64_t tasks = 0;
  mh_executor executor = MH_DEFAULT(mh_executor);
  executor.self = &tasks;
  executor.concurrency = two_at_once;
  executor.run = run_backwards;
  mh_workspace* workspace = NULL;
  size_t needed = 0, held = 0;
  OK(mh_workspace_create(&workspace));
  options.executor = &executor;
  options.workspace = workspace;
  OK(mh_attention_workspace_size(&q, &k, &v, &again, &options, &needed));
  OK(mh_workspace_reserve(workspace, needed));
  OK(mh_workspace_bytes(workspace, &held));
  EXPECT(held >= needed);
  OK(mh_attention(&q, &k, &v, &again, &options));
  EXPECT(tasks > 0 && memcmp(out_data, again_data, sizeof out_data) == 0);
  mh_workspace_destroy(workspace);
  options.executor = NULL;
  options.workspace = NULL;
  const int64_t backwards[4] = {COUNT, -(TOKENS * WIDTH), WIDTH, 1}; /* head 1 comes first */
  again.data = again_data + TOKENS * WIDTH;
  again.strides = backwards;
  OK(mh_attention(&q, &k, &v, &again, &options));
  EXPECT(memcmp(out_data, again_data + TOKENS * WIDTH, sizeof out_data / 2) == 0);

  mh_explanation explanation = MH_DEFAULT(mh_explanation);
  OK(mh_explain(&q, &k, &v, &out, &options, &explanation));
  EXPECT(explanation.run_keys > 0 && strstr(explanation.text, explanation.isa) != NULL);
  EXPECT(strstr(explanation.path, "F32") != NULL && explanation.bits[0] != '\0' && explanation.tuning[0] != '\0');

  const double scale = 0; /* every key counts the same */
  const int64_t window[2] = {1, 0};
  mh_mask last_two = MH_DEFAULT(mh_mask);
  last_two.window = window;
  mh_attention_options flat = MH_DEFAULT(mh_attention_options);
  flat.mask = &last_two;
  flat.scale = &scale;
  OK(mh_attention(&q, &k, &v, &out, &flat));
  EXPECT(fabsf(out_data[6 * WIDTH] - (v_data[5 * WIDTH] + v_data[6 * WIDTH]) / 2) < 1e-6f);
}

static void merge(void) {
  mh_tensor q = tensor4(q_data, 1, HEADS, TOKENS, WIDTH), k = tensor4(k_data, 1, HEADS, TOKENS, WIDTH);
  mh_tensor v = tensor4(v_data, 1, HEADS, TOKENS, WIDTH), out = tensor4(out_data, 1, HEADS, TOKENS, WIDTH);
  mh_tensor lse = tensor3(lse_data, 1, HEADS, TOKENS), again = tensor4(again_data, 1, HEADS, TOKENS, WIDTH);
  mh_row_states* states = NULL;
  OK(mh_row_states_create(0, TOKENS, 1, HEADS, TOKENS, WIDTH, &states));
  mh_attention_options options = MH_DEFAULT(mh_attention_options);
  options.lse = &lse;
  options.row_states = states;
  OK(mh_attention(&q, &k, &v, &out, &options));
  const mh_row_states* const parts[1] = {states};
  OK(mh_merge_row_states(parts, 1, &again, NULL, NULL, 1, NULL));
  EXPECT(memcmp(out_data, again_data, sizeof out_data) == 0);
  mh_tensor max, sum, output;
  OK(mh_row_states_tensors(states, &max, &sum, &output));
  EXPECT(max.rank == 4 && sum.shape[2] == HEADS && output.rank == 5 && output.shape[4] == WIDTH);
  mh_row_states_destroy(states);
  /* Two equal halves are the whole, with twice the mass. */
  float lse_both[HEADS * TOKENS];
  mh_tensor both = tensor3(lse_both, 1, HEADS, TOKENS);
  OK(mh_merge_attention(&out, &lse, &out, &lse, &again, &both, 0, NULL));
  EXPECT(memcmp(out_data, again_data, sizeof out_data) == 0 && fabs(lse_both[0] - lse_data[0] - log(2.0)) < 1e-5);
}

static void decode(void) {
  mh_kv_cache_options options = MH_DEFAULT(mh_kv_cache_options);
  options.num_kv_heads = HEADS;
  options.head_dim = WIDTH;
  options.page_size = 16;
  mh_kv_cache* cache = NULL;
  int64_t first = -1, copy = -1, tokens = 0, pages = 0;
  size_t bytes = 0;
  OK(mh_kv_cache_create(&options, &cache));
  OK(mh_kv_cache_add(cache, &first));
  mh_tensor k = tensor3(k_data, HEADS, TOKENS, WIDTH), v = tensor3(v_data, HEADS, TOKENS, WIDTH);
  OK(mh_kv_cache_append(cache, first, &k, &v, 1, NULL));
  OK(mh_kv_cache_fork(cache, first, &copy));
  OK(mh_kv_cache_pages_in_use(cache, &pages));
  EXPECT(pages == TOKENS / 16);
  OK(mh_kv_cache_append(cache, copy, &k, &v, 1, NULL));
  OK(mh_kv_cache_truncate(cache, copy, TOKENS));
  OK(mh_kv_cache_length(cache, copy, &tokens));
  OK(mh_kv_cache_bytes(cache, &bytes));
  EXPECT(tokens == TOKENS && bytes >= 2 * sizeof k_data);

  /* The bits of the same tokens without a cache. */
  mh_tensor q = tensor4(q_data, 1, HEADS, TOKENS, WIDTH), out = tensor4(out_data, 1, HEADS, TOKENS, WIDTH);
  mh_tensor again = tensor4(again_data, 1, HEADS, TOKENS, WIDTH);
  mh_tensor k4 = tensor4(k_data, 1, HEADS, TOKENS, WIDTH), v4 = tensor4(v_data, 1, HEADS, TOKENS, WIDTH);
  mh_mask mask = MH_DEFAULT(mh_mask);
  mask.causal = 1;
  mask.alignment = MH_BOTTOM_RIGHT;
  mh_attention_options how = MH_DEFAULT(mh_attention_options);
  how.mask = &mask;
  OK(mh_attention(&q, &k4, &v4, &out, &how));
  OK(mh_kv_cache_attention(&q, cache, &copy, 1, &again, &how));
  EXPECT(memcmp(out_data, again_data, sizeof out_data) == 0);
  OK(mh_kv_cache_remove(cache, first));
  EXPECT(mh_kv_cache_length(cache, first, &tokens) == MH_INVALID_ARGUMENT);
  mh_kv_cache_destroy(cache);
}

static void layer(void) {
  enum { MODEL = HEADS * WIDTH };
  mh_layer_config config = MH_DEFAULT(mh_layer_config);
  config.d_model = MODEL;
  config.num_heads = HEADS;
  mh_layer_config back = MH_DEFAULT(mh_layer_config);
  mh_layer *one = NULL, *other = NULL;
  OK(mh_layer_create(&config, &one));
  OK(mh_layer_get_config(one, &back));
  EXPECT(back.num_kv_heads == HEADS && back.kdim == MODEL && back.no_bias == 0);

  /* Its tensors, by name, make a layer of the same bits. */
  const char* names[8];
  char copies[8][32];
  mh_tensor tensors[8];
  size_t count = 0;
  int64_t parameters = 0;
  OK(mh_layer_tensor_count(one, &count));
  EXPECT(count == 4);
  for (size_t i = 0; i < count && i < 8; ++i) {
    const char* name = NULL;
    OK(mh_layer_tensor_name(one, i, &name));
    snprintf(copies[i], sizeof copies[i], "%s", name);
    names[i] = copies[i];
    OK(mh_layer_tensor(one, names[i], &tensors[i]));
  }
  OK(mh_layer_parameter_count(one, &parameters));
  EXPECT(parameters == 4 * MODEL * MODEL + 4 * MODEL);
  OK(mh_layer_create_from(&config, names, tensors, count, &other));
  mh_tensor x = tensor3(q_data, 1, TOKENS, MODEL), y = tensor3(out_data, 1, TOKENS, MODEL);
  mh_tensor again = tensor3(again_data, 1, TOKENS, MODEL), weights = tensor4(weights_data, 1, HEADS, TOKENS, TOKENS);
  mh_mask mask = MH_DEFAULT(mh_mask);
  mask.causal = 1;
  mh_layer_options options = MH_DEFAULT(mh_layer_options);
  options.mask = &mask;
  options.weights = &weights;
  OK(mh_layer_forward(one, &x, NULL, NULL, &y, &options));
  EXPECT(weights_data[0] == 1.0f && weights_data[1] == 0.0f);
  OK(mh_layer_forward(other, &x, &x, &x, &again, &options));
  EXPECT(memcmp(out_data, again_data, sizeof out_data) == 0);
  OK(mh_layer_load_state_dict(other, names, tensors, count));
  mh_layer_destroy(one);
  mh_layer_destroy(other);

  const char* problem = NULL;
  OK(mh_head_count_problem(512, 7, &problem));
  EXPECT(strstr(problem, "would divide") != NULL);
}

static void machine(void) {
  char version[32];
  snprintf(version, sizeof version, "%d.%d.%d", MH_VERSION_MAJOR, MH_VERSION_MINOR, MH_VERSION_PATCH);
  EXPECT(strcmp(mh_version(), version) == 0);
  const char* const* isas = NULL;
  const char* active = NULL;
  const char* bits = NULL;
  size_t count = 0;
  int32_t threads = 0;
  OK(mh_available_isas(&isas, &count));
  OK(mh_set_isa(isas[count - 1]));
  OK(mh_active_isa(&active));
  EXPECT(strcmp(active, isas[count - 1]) == 0);
  OK(mh_set_isa(NULL));
  OK(mh_active_bits(MH_F32, &bits));
  EXPECT(strncmp(bits, "f32-", 4) == 0);
  OK(mh_default_num_threads(&threads));
  EXPECT(threads >= 1);
  EXPECT(strcmp(mh_dtype_name(MH_BF16), "BF16") == 0 && mh_dtype_size(MH_I64) == 8);
}

static void errors(void) {
  mh_tensor q = tensor4(q_data, 1, HEADS, TOKENS, WIDTH), k = tensor4(k_data, 1, HEADS, TOKENS, WIDTH / 2);
  EXPECT(mh_attention(&q, &k, &k, &q, NULL) == MH_INVALID_ARGUMENT);
  EXPECT(strstr(mh_last_error(), "mh_attention: k has head size 16, q has 32") == mh_last_error());
  mh_row_states_destroy(NULL);
  mh_workspace_destroy(NULL);
  mh_kv_cache_destroy(NULL);
  mh_layer_destroy(NULL);
}

#ifdef MANYHEADS_C_PROGRAM
#ifdef __cplusplus
extern "C"
#endif
    const char*
    MANYHEADS_C_PROGRAM(void);
/* What is wrong; "" where nothing is. */
const char* MANYHEADS_C_PROGRAM(void)
#else
int main(void)
#endif
{
  wrong[0] = '\0';
  fill(q_data, COUNT, 1);
  fill(k_data, COUNT, 2);
  fill(v_data, COUNT, 3);
  attend();
  merge();
  decode();
  layer();
  machine();
  errors();
#ifdef MANYHEADS_C_PROGRAM
  return wrong;
#else
  printf("C consumer of %s: %s\n", mh_version(), wrong[0] == '\0' ? "right" : wrong);
  return wrong[0] == '\0' ? EXIT_SUCCESS : EXIT_FAILURE;
#endif
}
