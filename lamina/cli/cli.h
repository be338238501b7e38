// What every verb shares: its entry in the table, the terminal, errors caught once.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "lamina/base/json.h"
#include "lamina/base/progress.h"
#include "lamina/report/terminal.h"

namespace lamina::cli {

// Runs with the arguments after the verb's name; returns the exit status.
using Run = int (*)(int argc, char** argv);

struct Verb {
  const char* name;
  const char* summary;
  Run run;  // null: the verb computes, and lives in the library that links libtorch
};

int run_inspect(int argc, char** argv);
int run_apply(int argc, char** argv);
int run_lora_remap(int argc, char** argv);
int run_tokenize(int argc, char** argv);
int run_prune(int argc, char** argv);
int run_eval(int argc, char** argv);
int run_analyse(int argc, char** argv);
int run_generate(int argc, char** argv);
int run_draw(int argc, char** argv);
int run_forward(int argc, char** argv);
int run_verify(int argc, char** argv);
int run_heal(int argc, char** argv);
int run_repair(int argc, char** argv);
int run_train(int argc, char** argv);
int run_scenes(int argc, char** argv);
int run_denorm(int argc, char** argv);
int run_neurons_map(int argc, char** argv);
int run_neurons_find(int argc, char** argv);
int run_neurons_show(int argc, char** argv);
int run_neurons_compare(int argc, char** argv);
int run_neurons_export(int argc, char** argv);
int run_neurons_clamp(int argc, char** argv);
int run_neurons_erase(int argc, char** argv);
int run_neurons_undo(int argc, char** argv);
int run_neurons_serve(int argc, char** argv);
int run_tag_train(int argc, char** argv);
int run_tag_eval(int argc, char** argv);
int run_tag_predict(int argc, char** argv);
int run_tag_score(int argc, char** argv);

// Exit statuses, documented in `lamina --help`.
enum Status { ok = 0, failed = 1, usage = 2, interrupted = 130, terminated = 143 };

// Parses with CLI11's rules and our messages; throws Exit when the program should end (help, wrong usage).
struct Exit {
  int status;
};
void parse(CLI::App& app, int argc, char** argv);

// Runs a verb; every exception becomes one sentence on stderr and an exit status.
int guarded(const std::function<int()>& run,
            const std::function<std::string(const std::exception&)>& message = {});

// A progress line on stderr after two seconds of work, when stderr is a terminal and `quiet` is off; stop on
// Ctrl-C.
struct WatchOptions {
  bool quiet = false;
};
class Terminal {
 public:
  explicit Terminal(WatchOptions options);
  ~Terminal();
  Watch watch();
  void clear();  // ends the progress line

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// How a stream of this process may be written to: its width, colours, characters.
report::Style style_of(int descriptor);

// Writes to stdout; a reader that went away (| head) ends the program quietly.
void print(std::string_view text);

// A path for people and for JSON: bytes that are not UTF-8 become U+FFFD.
std::string shown(const std::filesystem::path& path);

// `lamina ` and the arguments, quoted for a shell: what the report shows to re-make it.
std::string command_line(int argc, char** argv, std::string_view verb);

std::string_view version_of();  // "0.1.0"
std::string version_text();     // "lamina 0.1.0"

}  // namespace lamina::cli
