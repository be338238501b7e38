#include "lamina/cli/cli.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <mutex>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/data/unicode.h"

namespace lamina::cli {

namespace {

using Clock = std::chrono::steady_clock;

volatile std::sig_atomic_t g_signal = 0;

// The first signal asks; the second one ends the program where it stands.
void on_signal(int signal) {
  if (g_signal != 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
    return;
  }
  g_signal = signal;
}

// Unlike fmt::print it does not throw where stderr cannot be written: then there is nobody to tell.
void complain(const std::string& text) {
  std::fputs(text.c_str(), stderr);
}

// libtorch's messages have many lines, and a value from a file may be long.
std::string one_sentence(std::string text) {
  constexpr size_t longest = 1000;
  std::ranges::replace(text, '\n', ' ');
  if (text.size() > longest) text = text.substr(0, longest) + "...";
  return text;
}

}  // namespace

void parse(CLI::App& app, int argc, char** argv) {
  app.name("lamina " + app.get_name());
  // CLI11 takes "--list=" for "--list" and looks for the value in what follows: an empty word says what is
  // meant.
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const bool empty = word.starts_with("--") && word.find('=') == word.size() - 1;
    words.emplace_back(empty ? word.substr(0, word.size() - 1) : word);
    if (empty) words.emplace_back();
  }
  std::ranges::reverse(words);
  try {
    app.parse(std::move(words));
  } catch (const CLI::CallForHelp&) {
    print(app.help());
    throw Exit{Status::ok};
  } catch (const CLI::ParseError& error) {
    complain(fmt::format("{}: {}\n{} --help tells more.\n", app.get_name(), error.what(), app.get_name()));
    throw Exit{Status::usage};
  }
}

int guarded(const std::function<int()>& run,
            const std::function<std::string(const std::exception&)>& message) {
  try {
    return run();
  } catch (const Exit& exit) {
    return exit.status;
  } catch (const Stopped&) {
    complain("lamina: stopped\n");
    return 128 + (g_signal ? g_signal : SIGINT);
  } catch (const std::bad_alloc&) {
    complain("lamina: out of memory; try fewer or shorter samples, or a machine with more\n");
  } catch (const std::filesystem::filesystem_error& error) {
    complain(fmt::format("lamina: {}: {}\n", error.path1().string(), error.code().message()));
  } catch (const std::exception& error) {
    complain(fmt::format("lamina: {}\n", one_sentence(message ? message(error) : error.what())));
  }
  return Status::failed;
}

void print(std::string_view text) {
  std::signal(SIGPIPE, SIG_IGN);
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    if (errno == EPIPE) throw Exit{Status::ok};
    fail("the standard output could not be written: {}", std::strerror(errno));
  }
}

report::Style style_of(int descriptor) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  std::string locale = variable("LC_ALL");
  if (locale.empty()) locale = variable("LC_CTYPE");
  if (locale.empty()) locale = variable("LANG");
  const bool terminal = isatty(descriptor) != 0;
  winsize size{};
  const bool known = terminal && ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return report::style_for({.terminal = terminal,
                            .columns = known ? size.ws_col : 80,
                            .term = variable("TERM"),
                            .no_color = variable("NO_COLOR"),
                            .locale = locale});
}

struct Terminal::State {
  bool live = false;
  bool shown = false;
  std::stop_source stop;
  std::mutex mutex;
  Clock::time_point started = Clock::now(), phase_started = started, drawn{};
  std::string phase;
  report::Style style;
};

Terminal::Terminal(WatchOptions options) : state_(std::make_unique<State>()) {
  const char* term = std::getenv("TERM");
  state_->live = !options.quiet && isatty(STDERR_FILENO) && term && std::string_view(term) != "dumb";
  state_->style = style_of(STDERR_FILENO);
  // One column less: a full line would break, and be drawn again below itself.
  --state_->style.width;
  g_signal = 0;
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

Terminal::~Terminal() {
  clear();
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

Watch Terminal::watch() {
  State& state = *state_;
  return {.tick =
              [&state](const Tick& tick) {
                const std::lock_guard lock(state.mutex);
                if (g_signal) state.stop.request_stop();
                const auto now = Clock::now();
                if (tick.phase != state.phase) state.phase = tick.phase, state.phase_started = now;
                if (!state.live || now - state.started < std::chrono::seconds(2) ||
                    now - state.drawn < std::chrono::milliseconds(100))
                  return;
                state.drawn = now;
                state.shown = true;
                const double spent = std::chrono::duration<double>(now - state.phase_started).count();
                const std::string line = report::progress_line(tick, spent, state.style);
                if (tick.stack.empty()) {
                  fmt::print(stderr, "\r\033[J{}", line);
                } else {  // the stack below, and the cursor back up
                  fmt::print(stderr, "\r\033[J{}\n{}\033[A\r", line,
                             report::stack_line(tick.stack, state.style));
                }
                std::fflush(stderr);
              },
          .stop = state.stop.get_token()};
}

void Terminal::clear() {
  if (state_->shown) fmt::print(stderr, "\r\033[J");
  state_->shown = false;
}

std::string shown(const std::filesystem::path& path) {
  return repair_utf8(path.native());
}

std::string command_line(int argc, char** argv, std::string_view verb) {
  std::string line = fmt::format("lamina {}", verb);
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const bool plain =
        !word.empty() &&
        word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=,:%+@") ==
            std::string_view::npos;
    if (plain) {
      line += fmt::format(" {}", word);
    } else {
      line += " '";
      for (char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
      line += "'";
    }
  }
  return repair_utf8(line);
}

std::string_view version_of() {
  return LAMINA_VERSION;
}
std::string version_text() {
  return fmt::format("lamina {}", version_of());
}

}  // namespace lamina::cli
