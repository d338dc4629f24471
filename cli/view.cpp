#include "view.hpp"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <manyheads/error.hpp>
#include <memory>
#include <system_error>

#include "arguments.hpp"
#include "base/file.hpp"
#include "cli.hpp"

namespace manyheads::cli {
namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() > end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool same_folder(const std::filesystem::path& a, const std::filesystem::path& b) {
  std::error_code problem;
  const auto folder = [&](const std::filesystem::path& of) {
    return std::filesystem::weakly_canonical(std::filesystem::absolute(of), problem).parent_path();
  };
  return folder(a) == folder(b);
}

void check(const ViewRequest& request) {
  const bool figure = ends_with(request.out, ".svg") || ends_with(request.out, ".png");
  const bool nothing = !request.what && request.model.empty();
  if (nothing && !figure) throw UsageError("a text with --model DIR, or a trace FILE, is required");
  const bool file = request.is_trace() || request.is_scan();
  if (request.model.empty() && !file && !nothing) {
    throw UsageError("--model is required for a text; a trace's name ends in .safetensors, a scan's in .scan");
  }
  if (request.is_scan() && !request.scan.empty()) throw UsageError("--scan goes beside a text or a trace, not a scan");
  if ((request.is_scan() || !request.scan.empty()) && !figure && !(request.out + request.site).empty()) {
    throw UsageError("a page of a scan is served alone; --export NAME.html and --export-site take a text or a trace");
  }
  if (file && (request.pair || request.truncate || !request.common.bits.empty())) {
    throw UsageError("--pair, --truncate and --bits are for a text, and a file has its own");
  }
  if (!request.treebank.empty() && request.model.empty()) throw UsageError("--treebank needs --model, which reads it");
  if (!request.out.empty() && !request.site.empty()) {
    throw UsageError("--export writes a file, --export-site a folder; leave out one of the two");
  }
  if (!request.out.empty() && !figure && !ends_with(request.out, ".html")) {
    throw UsageError("--export takes a name that ends in .html, .svg or .png; got " + base::in_quotes(request.out));
  }
  if (!request.site.empty() && request.model.empty()) throw UsageError("--export-site needs --model, which it copies");
  if (!figure && !(request.head + request.view).empty()) {
    throw UsageError("--view and --head are of a figure: --export NAME.svg or NAME.png");
  }
  if (!request.study.empty()) {
    if (!ends_with(request.study, ".html")) {
      throw UsageError("--study takes a report, NAME.html; got " + base::in_quotes(request.study));
    }
    if (figure) throw UsageError("--study goes with a page, not a figure");
    const std::filesystem::path page = request.out;
    if (!request.out.empty() && (page == request.study || !same_folder(page, request.study))) {
      throw UsageError("--study: with --export the page links the report beside it; put " +
                       base::path_in_quotes(request.study) + " into the folder of " + base::path_in_quotes(page));
    }
  }
  if (!request.heads.empty() && (request.model.empty() || (!ends_with(request.out, ".html") && request.site.empty()))) {
    throw UsageError("--heads goes with --export NAME.html or --export-site, and --model");
  }
}

void view(const ViewRequest& request) {
  check(request);
#ifdef MANYHEADS_VIEWER
  if (ends_with(request.out, ".svg") || ends_with(request.out, ".png")) return export_figure(request);
  if (!request.out.empty()) return export_page(request);
  if (!request.site.empty()) return export_site(request);
  serve_page(request);
#else
  throw Error(ErrorCode::kUnsupported,
              "this build has no page. Install libboost1.74-dev, zlib1g-dev and node 18 with npm, then configure again "
              "with -DMANYHEADS_VIEWER=ON");
#endif
}

}  // namespace

bool ViewRequest::is_scan() const { return what && ends_with(*what, ".scan"); }

std::string ViewRequest::text() const {
  return what && !is_trace() && !is_scan() ? *what : "The black cat sat on the mat.";
}

bool ViewRequest::is_trace() const { return what && ends_with(*what, ".safetensors"); }

void add_view(CLI::App& app) {
  auto request = std::make_shared<ViewRequest>();
  CLI::App* verb =
      app.add_subcommand("view", "A page for the browser on a text, a trace or a scan: the heads, step by step");
  verb->add_option("TEXT", request->what,
                   "The text, a trace (NAME.safetensors) or a scan (NAME.scan); default: The black cat sat on the mat.")
      ->transform(plain_text)
      ->type_name("");
  verb->add_option("--model", request->model, "Folder with config.json, model.safetensors and tokenizer.json")
      ->type_name("DIR");
  verb->add_option("--pair", request->pair, "A second text: the model sees both, as two segments")
      ->transform(plain_text)
      ->type_name("TEXT2");
  verb->add_flag("--truncate", request->truncate, "Cut a text that is longer than the model takes");
  verb->add_option("--treebank", request->treebank,
                   "Sentences with their trees (CoNLL-U): which heads read their relations, in the view Corpus")
      ->type_name("FILE");
  verb->add_option("--scan", request->scan,
                   "A scan beside the text: what a head does over it, in the views Heads and Corpus")
      ->type_name("FILE");
  verb->add_option("--port", request->port, "The port of 127.0.0.1 to serve on; default: a free one")
      ->transform(whole_number(1, 65535))
      ->type_name("N");
  verb->add_flag("--no-browser", request->no_browser, "Print the link alone");
  verb->add_option(
          "--export", request->out,
          "Write one file instead: NAME.html, a page that needs nothing else, or NAME.svg or NAME.png, a figure of "
          "one view")
      ->type_name("FILE");
  verb->add_option("--view", request->view,
                   "The view of a figure: a link that the page copied, or a word such as story (default), readers, "
                   "heads, map, links, why, distance, pipeline, dimensions or corpus; more of a link may follow: "
                   "\"links&l.top=3\"")
      ->type_name("LINK");
  verb->add_option("--head", request->head,
                   "The head of a figure: layer.head, both counted from 0. Without --view: its map")
      ->type_name("L.H");
  verb->add_option(
          "--heads", request->heads,
          "Heads whose projections an exported page holds beside the two of its tour: some 300 KB each for MiniLM")
      ->type_name("L.H,L.H,...");
  verb->add_option("--export-site", request->site,
                   "Write a folder for any static host instead: the page, and the model for texts of the reader's own")
      ->type_name("DIR");
  verb->add_option("--study", request->study,
                   "A report of manyheads study for the tour to link: served, copied into the site, or beside the file")
      ->type_name("FILE");
  verb->add_option("--site-dtype", request->site_dtype,
                   "The weights of that folder: bf16 (default), or f32, twice as large")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->type_name("NAME");
  add_bits(*verb, request->common);
  add_common(*verb, request->common);
  verb->footer("Example: manyheads view \"The black cat sat on the mat.\" --model models/all-MiniLM-L6-v2");
  verb->callback([request] { view(*request); });
}

}  // namespace manyheads::cli
