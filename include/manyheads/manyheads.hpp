#pragma once

// All of the library; <manyheads/model/...> and <manyheads/lens/...> belong to manyheads::lens.
#include <manyheads/attention.hpp>
#include <manyheads/attention_backward.hpp>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/kv_cache.hpp>
#include <manyheads/limits.hpp>
#include <manyheads/mask.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/parallel.hpp>
#include <manyheads/safetensors.hpp>
#include <manyheads/tensor.hpp>
#include <manyheads/version.hpp>
