#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>

#include "kernels/canonical_order.hpp"
#include "kernels/params.hpp"

// Who works on which chunk of keys of which head in the backward. Where there are few chunks, each is cut into parts of
// the queries.
namespace manyheads::attention_detail {

// The work on one head: one batch entry and one key/value head.
struct HeadWork {
  std::int64_t batch = 0, kv_head = 0;
  std::int64_t chunks = 1;
  int slot = 0;  // its memory; as many heads are under way at once as there are slots
};

// Hands out parts of chunks of keys, head after head, chunks and their parts ascending within each. A part waits for
// none but earlier ones of its head, which are under way or done: no order of threads can block.
class KeyTasks {
 public:
  // `memory` holds 2 numbers for each slot; slots: as many as threads, or heads where those are fewer.
  KeyTasks(const kernels::QkvMask& params, int slots, std::int64_t parts, std::int64_t* memory)
      : params_(params), parts_(parts), left_(memory), free_(memory + slots), free_count_(slots) {
    for (int s = 0; s < slots; ++s) free_[s] = slots - 1 - s;
  }
  // A head without keys has a chunk too: its dq is written.
  static std::int64_t chunks(const kernels::QkvMask& params, std::int64_t b) {
    return std::max<std::int64_t>(1, kernels::chunks_of(params.key_length(b)));
  }
  // The next part; false where none is left. begin(slot) is called before the first of a head.
  template <class Begin>
  bool next(HeadWork& head, std::int64_t& chunk, std::int64_t& part, Begin&& begin) {
    const std::lock_guard lock(mutex_);
    if (head_.batch == params_.batch || params_.kv_heads == 0) return false;
    if (chunk_ == 0 && part_ == 0) {
      head_.chunks = chunks(params_, head_.batch);
      head_.slot = static_cast<int>(free_[--free_count_]);
      left_[head_.slot] = head_.chunks * parts_;
      begin(head_.slot);
    }
    head = head_;
    chunk = chunk_;
    part = part_;
    if (++part_ < parts_) return true;
    part_ = 0;
    if (++chunk_ == head_.chunks) {
      chunk_ = 0;
      if (++head_.kv_head == params_.kv_heads) {
        head_.kv_head = 0;
        ++head_.batch;
      }
    }
    return true;
  }
  // A part is done. Returns whether it was the head's last; release() then gives the slot back.
  bool done(const HeadWork& head) {
    const std::lock_guard lock(mutex_);
    return --left_[head.slot] == 0;
  }
  void release(const HeadWork& head) {
    const std::lock_guard lock(mutex_);
    free_[free_count_++] = head.slot;
  }

 private:
  const kernels::QkvMask& params_;
  std::mutex mutex_;
  HeadWork head_;
  std::int64_t parts_, chunk_ = 0, part_ = 0;
  std::int64_t* left_;  // parts of the head of each slot that are not done
  std::int64_t* free_;  // slots of no head, a stack
  int free_count_;
};

}  // namespace manyheads::attention_detail
