#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace manyheads::cli {

// The name of a study's report beside a served page.
constexpr const char* kStudy = "study.html";

// The page that viewer/ builds: one HTML file with its script, style and WebAssembly inside.
std::string_view built_page();

// The same, for pages that nobody serves. Throws Error (kUnsupported) where this build's page has no WebAssembly
// inside.
std::string_view page_that_computes();

// The page with the data that it starts from in its place, and before it what its first picture needs
// (viewer/README.md, "Data in the page"); null: nothing. No text in the data can end the script that holds it. Throws
// Error (kUnsupported) where the page has no such place.
std::string page_with(std::string_view page, const nlohmann::ordered_json& start, const nlohmann::ordered_json& first);

// The content security policy that the page itself names; one that lets nothing be loaded where it names none.
std::string policy_of(std::string_view page);

}  // namespace manyheads::cli
