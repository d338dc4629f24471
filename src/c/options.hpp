#pragma once

#include <manyheads/attention.hpp>
#include <manyheads/kv_cache.hpp>

#include "c/boundary.hpp"

struct mh_workspace {
  manyheads::Workspace memory;
  manyheads::KVBatch batch;  // of mh_kv_cache_attention, kept so that a step allocates nothing
};

struct mh_row_states {
  manyheads::RowStates states;
};

namespace manyheads::c {

Mask mask_of(const char* function, const mh_mask* mask);
Dropout dropout_of(const char* function, const mh_dropout* dropout);

// The options of a call of attention as C++ takes them. They point to the threads that they hold.
class CallersOptions {
 public:
  CallersOptions(const char* function, const mh_attention_options* options);
  const AttentionOptions& operator*() const noexcept { return options_; }
  mh_workspace* workspace() const noexcept { return given_.workspace; }

 private:
  mh_attention_options given_;
  CallersThreads threads_;
  AttentionOptions options_;
};

}  // namespace manyheads::c
