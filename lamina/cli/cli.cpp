#include "lamina/cli/cli.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <mutex>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

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

}  // namespace

void parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print(app.help());
    throw Exit{Status::ok};
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "lamina {}: {}\nlamina {} --help tells more.\n", app.get_name(), error.what(),
               app.get_name());
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
    fmt::print(stderr, "lamina: stopped\n");
    return 128 + (g_signal ? g_signal : SIGINT);
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "lamina: out of memory; try fewer or shorter samples, or a machine with more\n");
  } catch (const std::exception& error) {
    fmt::print(stderr, "lamina: {}\n", message ? message(error) : error.what());
  }
  return Status::failed;
}

void print(std::string_view text) {
  std::signal(SIGPIPE, SIG_IGN);
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    if (errno == EPIPE) throw Exit{Status::ok};
    fail("stdout could not be written: {}", std::strerror(errno));
  }
}

struct Terminal::State {
  bool live = false;
  bool shown = false;
  std::stop_source stop;
  std::mutex mutex;
  Clock::time_point started = Clock::now(), phase_started = started, drawn{};
  std::string phase;
};

Terminal::Terminal(WatchOptions options) : state_(std::make_unique<State>()) {
  const char* term = std::getenv("TERM");
  state_->live = !options.quiet && isatty(STDERR_FILENO) && term && std::string_view(term) != "dumb";
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
                std::string line = fmt::format("{} ", tick.phase);
                if (tick.total > 0) {
                  const double part = tick.done / tick.total;
                  line += fmt::format("{:3.0f} %", 100 * part);
                  if (part > 0.01 && part < 1)
                    line += fmt::format(", {} left", human_seconds(spent / part * (1 - part)));
                }
                if (!tick.detail.empty()) line += "  " + tick.detail;
                fmt::print(stderr, "\r\033[K{:.110}", line);
                std::fflush(stderr);
              },
          .stop = state.stop.get_token()};
}

void Terminal::clear() {
  if (state_->shown) fmt::print(stderr, "\r\033[K");
  state_->shown = false;
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
  return line;
}

std::string_view version_of() {
  return LAMINA_VERSION;
}
std::string version_text() {
  return fmt::format("lamina {}", version_of());
}

}  // namespace lamina::cli
