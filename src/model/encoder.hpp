#pragma once

#include <manyheads/model/encoder.hpp>
#include <string_view>

#include "kernels/dispatch.hpp"

// What encoders and decoders check alike. Errors are in the name of `function`.
namespace manyheads::model {

void check_threads(const char* function, const Threads& threads);
void check_options(const char* function, const EncoderOptions& options, const EncoderConfig& config);

// The kernels for a run of this encoder.
const kernels::KernelTable& encoder_table(const char* function, std::string_view bits, const EncoderConfig& config);

}  // namespace manyheads::model
