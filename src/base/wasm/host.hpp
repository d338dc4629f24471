#pragma once

// What the page gives to the module.
namespace manyheads::base {

// Tells the page why nothing comes back, and ends the call by a trap.
[[noreturn]] void stop(const char* text);

}  // namespace manyheads::base
