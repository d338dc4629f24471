#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <exception>
#include <manyheads/error.hpp>
#include <manyheads/version.hpp>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "base/file.hpp"
#include "base/parallel.hpp"
#include "cli.hpp"

namespace manyheads::cli {

namespace {

enum ExitCode { kOk = 0, kFailed = 1, kUsage = 2 };

// A program started without a standard stream gives its number to the first file it opens, and would write messages
// into that file. A read-only stand-in makes such a write fail instead.
void reserve_standard_streams() {
  int fd = 0;
  do {
    fd = ::open("/dev/null", O_RDONLY);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd > STDERR_FILENO) ::close(fd);
}

// The system has removed this handler by now (SA_RESETHAND), and the raised signal comes when it returns: the process
// dies of the signal, which makes a shell end its loop.
void die_of(int signal) {
  base::remove_temporaries();
  ::raise(signal);
}

// Handles each signal that would end the process. One ignored from the start, by nohup or in the background, stays so.
void clean_up_on_signals() {
  struct sigaction dying{};
  dying.sa_handler = die_of;
  dying.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXCPU}) {
    struct sigaction before{};
    if (::sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_DFL) {
      ::sigaction(signal, &dying, nullptr);
    }
  }
}

std::string help_hint(const std::string& verb) {
  return "; see manyheads " + (verb.empty() ? "" : verb + " ") + "--help";
}

// OpenMP warns of such a value and goes on; so do we.
void warn_of_thread_variable(const std::string& verb) {
  if (const std::string value = base::ignored_thread_variable(); !value.empty()) {
    complain(verb, "warning: " + value + " is no count of threads; it is ignored");
  }
}

std::vector<const CLI::App*> verbs(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::string verb_names(const CLI::App& app) {
  std::string names;
  for (const CLI::App* verb : verbs(app)) names += (names.empty() ? "" : ", ") + verb->get_name();
  return names;
}

int run(int argc, char** argv) {
  CLI::App app("Exact multi-head attention, and what each head looks at.", "manyheads");
  app.set_help_flag("-h,--help", "Print this help");
  app.set_version_flag("--version", std::string("manyheads ") + version());
  app.get_option("--version")->description("Print the version");
  app.require_subcommand(1);
  app.get_formatter()->label("SUBCOMMAND", "VERB");
  app.get_formatter()->column_width(28);
  app.footer("Example: manyheads dims --d-model 512 --heads 1,2,4,8\nExit codes: 0 ok, 1 failed, 2 usage.");
  add_dims(app);
  add_look(app);
  add_trace(app);
  add_map(app);
  add_view(app);
  add_roles(app);
  add_scan(app);
  add_embed(app);
  add_generate(app);
  add_attend(app);
  add_layer(app);
  add_study(app);
  add_bench(app);
  for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; })) verb->group("Verbs");

  const std::string first = argc > 1 ? argv[1] : "";
  const CLI::App* verb = nullptr;
  for (const CLI::App* candidate : verbs(app)) {
    if (candidate->get_name() == first) verb = candidate;
  }
  const std::string name = verb != nullptr ? first : "";
  if (first.empty()) {
    complain("",
             (argc > 1 ? "the verb is empty" : "a verb is missing") + (": one of " + verb_names(app)) + help_hint(""));
    return kUsage;
  }
  if (verb == nullptr && first != "-h" && first != "--help" && first != "--version") {
    complain("", "unknown verb " + base::in_quotes(first) + ": one of " + verb_names(app) + help_hint(""));
    return kUsage;
  }
  try {
    if (verb == nullptr) {
      app.parse(argc, argv);
    } else {
      const Arguments arguments = read_arguments(*verb, {argv + 2, argv + argc});
      if (!arguments.help && !arguments.threads) warn_of_thread_variable(name);
      std::vector<std::string> words(arguments.words.rbegin(), arguments.words.rend());  // as CLI11 takes them
      words.push_back(name);
      app.parse(std::move(words));
    }
  } catch (const CLI::CallForHelp&) {
    print(app.help());
  } catch (const CLI::CallForVersion& version) {
    print(std::string(version.what()) + "\n");
  } catch (const CLI::ExtrasError& extras) {
    // CLI11 puts the arguments behind a colon.
    const std::string what = extras.what();
    const std::size_t colon = what.find(": ");
    complain(name,
             "unknown argument " + (colon == std::string::npos ? what : what.substr(colon + 2)) + help_hint(name));
    return kUsage;
  } catch (const CLI::ParseError& problem) {
    complain(name, problem.what() + help_hint(name));
    return kUsage;
  } catch (const UsageError& problem) {
    complain(name, problem.what() + help_hint(name));
    return kUsage;
  } catch (const std::bad_alloc&) {
    complain(name, "not enough memory");
    return kFailed;
  } catch (const std::exception& problem) {
    complain(name, problem.what());
    return kFailed;
  }
  return kOk;
}

int guarded(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // print sees EPIPE, and files being written are cleaned up
  clean_up_on_signals();
  std::signal(SIGXFSZ, SIG_IGN);  // a file past its size limit is an error of the write
  reserve_standard_streams();
  try {
    return run(argc, argv);
  } catch (const ClosedPipe&) {
    return kOk;
  } catch (const std::exception& problem) {  // help or version that could not be printed
    complain("", problem.what());
    return kFailed;
  }
}

}  // namespace
}  // namespace manyheads::cli

int main(int argc, char** argv) { return manyheads::cli::guarded(argc, argv); }
