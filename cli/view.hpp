#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli.hpp"

namespace manyheads::cli {

struct ViewRequest {
  Common common;
  std::optional<std::string> what;  // a text, a trace or a scan
  std::string model;
  std::optional<std::string> pair;
  bool truncate = false;
  std::string treebank;  // a CoNLL-U file, for the table of relations
  std::string scan;      // beside the text
  std::int64_t port = 0;
  bool no_browser = false;
  std::string out;   // --export
  std::string view;  // of a figure: a link or a view's word
  std::string head, heads;
  std::string site;  // --export-site
  std::string site_dtype = "bf16";
  std::string study;  // a report for the tour to link

  bool is_trace() const;     // whether `what` names a trace
  bool is_scan() const;      // or a scan
  std::string text() const;  // `what` where it is neither; else the usual text
};

// cli/view/: each is one way in to the page.
void serve_page(const ViewRequest& request);
void export_page(const ViewRequest& request);
void export_site(const ViewRequest& request);
void export_figure(const ViewRequest& request);

}  // namespace manyheads::cli
