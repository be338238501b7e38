#include "lamina/heal/group.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/hash.h"
#include "lamina/base/json.h"
#include "lamina/base/progress.h"
#include "lamina/base/text.h"
#include "lamina/heal/impl/place.h"

namespace lamina {

namespace {

constexpr int kGroupFailed = 71;  // EX_OSERR of sysexits.h: tells a broken group from the verb's own failures

class Alone final : public Group {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void broadcast(Tensor&, int) override {}
  void sum(Tensor&) override {}
  std::vector<Tensor> gather(const Tensor& tensor) override { return {tensor}; }
  void barrier() override {}

  std::unique_ptr<Gradients> gradients(std::vector<std::pair<std::string, Tensor>> leaves) override {
    struct Own final : Gradients {
      std::vector<std::pair<std::string, Tensor>> leaves;
      void arm() override {}
      void wait() override {
        for (const auto& [name, leaf] : leaves) {
          if (!leaf.grad().defined())
            fail("{} got no gradient; freeze it, or see that the loss reads it", name);
        }
      }
    };
    auto own = std::make_unique<Own>();
    own->leaves = std::move(leaves);
    return own;
  }
};

// What the launcher said, for errors before there is a group.
struct Launch {
  std::string who;  // "rank 3: "; empty: one process
  std::string error_file;
};
Launch launch_of(const GroupOptions& options) {
  try {
    const auto place = place_of(options, environment);
    if (!place || place->size == 1) return {};
    return {.who = fmt::format("rank {}: ", place->rank), .error_file = place->error_file};
  } catch (const Error&) {
    return {};
  }
}

int number(const char* name, const std::string& text, int least, int most) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    fail(
        "the environment's {} is {} where a number from {} to {} was expected; start the ranks with torchrun",
        name, in_quotes(text), least, most);
  }
  return value;
}

[[noreturn]] void end_with(const std::string& who, const std::string& sentence,
                           const std::string& error_file) {
  write_error_file(error_file, who + sentence);
  std::fflush(stdout);
  std::fputs(fmt::format("lamina: {}{}\n", who, sentence).c_str(), stderr);
  std::fflush(stderr);
  _exit(kGroupFailed);
}

}  // namespace

bool Place::one_machine() const {
  if (local_size > 0) return local_size == size;
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

std::string Place::shown() const {
  return fmt::format("rank {} of {}", rank, size);
}

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  if (!value) return std::nullopt;
  return value;
}

std::optional<Place> place_of(const GroupOptions& options, const Variables& variable) {
  const bool slurm = options.ranks == "slurm";
  if (!slurm && !options.ranks.empty()) {
    fail("ranks come from torchrun's variables or from slurm's, not from {}", in_quotes(options.ranks));
  }
  const char* const rank_name = slurm ? "SLURM_PROCID" : "RANK";
  const char* const size_name = slurm ? "SLURM_NTASKS" : "WORLD_SIZE";
  const char* const needed[] = {rank_name, size_name, "MASTER_ADDR", "MASTER_PORT"};
  std::vector<std::string> set, missing;
  for (const char* name : needed) (variable(name).value_or("").empty() ? missing : set).emplace_back(name);
  if (set.empty() && !slurm) return std::nullopt;
  if (!missing.empty()) {
    fail(
        "{} {} not set in the environment{}{}; start the ranks with torchrun --no-python, or unset {} to run "
        "alone",
        fmt::join(missing, ", "), missing.size() == 1 ? "is" : "are", set.empty() ? "" : ", but ",
        set.empty() ? "" : fmt::format("{} {}", fmt::join(set, ", "), set.size() == 1 ? "is" : "are"),
        set.empty() ? "--ranks" : fmt::format("{}", fmt::join(set, ", ")));
  }

  Place place;
  place.size = number(size_name, *variable(size_name), 1, 1 << 16);
  place.rank = number(rank_name, *variable(rank_name), 0, place.size - 1);
  place.address = *variable("MASTER_ADDR");
  place.port = number("MASTER_PORT", *variable("MASTER_PORT"), 1, 65535);
  const char* const local_name = slurm ? "SLURM_LOCALID" : "LOCAL_RANK";
  if (const auto local = variable(local_name)) {
    place.local_rank = number(local_name, *local, 0, place.size - 1);
  }
  if (const auto local = slurm ? std::nullopt : variable("LOCAL_WORLD_SIZE")) {
    place.local_size = number("LOCAL_WORLD_SIZE", *local, 1, place.size);
  }
  place.agent = !slurm && variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  place.run = slurm ? variable("SLURM_JOB_ID").value_or("0") + "." + variable("SLURM_STEP_ID").value_or("0")
                    : variable("TORCHELASTIC_RUN_ID").value_or("0");
  place.attempt = variable("TORCHELASTIC_RESTART_COUNT").value_or("0");
  place.error_file = variable("TORCHELASTIC_ERROR_FILE").value_or("");
  return place;
}

void write_error_file(const std::string& path, const std::string& sentence) {
  if (path.empty()) return;
  Json inner = Json::object();
  inner["message"] = sentence;
  inner["extraInfo"] = {{"py_callstack", sentence}, {"timestamp", std::to_string(std::time(nullptr))}};
  Json outer = Json::object();
  outer["message"] = inner;
  try {
    write_file(path, outer.dump(-1, ' ', false, Json::error_handler_t::replace));
  } catch (const Error&) {  // the sentence is on standard error too
  }
}

std::unique_ptr<Group> alone() {
  return std::make_unique<Alone>();
}

std::unique_ptr<Group> join(const GroupOptions& options) {
  const auto place = place_of(options, environment);
  if (!place) return alone();
  if (place->agent) {
    // An agent that is killed would leave its ranks behind.
    const pid_t agent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != agent) fail("{}: torchrun is gone", place->shown());
  }
  if (place->size == 1) return alone();
  return join_at(*place, options);
}

void agree(Group& group, const std::map<std::string, std::string>& fields) {
  if (group.size() == 1) return;
  const Json own(fields);
  const std::string text = own.dump(-1, ' ', false, Json::error_handler_t::replace);
  Tensor bytes = at::empty({int64_t(text.size())}, at::kByte);
  std::copy(text.begin(), text.end(), bytes.mutable_data_ptr<uint8_t>());
  const std::vector<Tensor> all = group.gather(bytes);
  std::vector<Json> said;
  for (const Tensor& tensor : all) {
    const auto* begin = reinterpret_cast<const char*>(tensor.const_data_ptr<uint8_t>());
    said.push_back(Json::parse(begin, begin + tensor.numel()));
  }
  // Every rank looks at everyone, so that all end with the same sentence.
  for (int rank = 1; rank < group.size(); ++rank) {
    std::vector<std::string> differ;
    for (const auto& [name, value] : said[0].items()) {
      const auto here = said[rank].find(name);
      if (here == said[rank].end() || *here != value) {
        differ.push_back(
            fmt::format("{} ({} against {})", name,
                        here == said[rank].end() ? "nothing" : in_quotes(here->get<std::string>()),
                        in_quotes(value.get<std::string>())));
      }
    }
    for (const auto& [name, value] : said[rank].items()) {
      if (!said[0].contains(name)) {
        differ.push_back(fmt::format("{} ({} against nothing)", name, in_quotes(value.get<std::string>())));
      }
    }
    if (!differ.empty()) {
      fail("rank {} differs from rank 0 in {}; start every rank with the same command and files", rank,
           fmt::join(differ, ", "));
    }
  }
}

int together(const GroupOptions& options, const std::function<int(Group&)>& work) {
  const Launch launch = launch_of(options);
  std::unique_ptr<Group> group;
  try {
    group = join(options);
  } catch (const std::exception& error) {
    if (launch.who.empty()) throw;
    end_with(launch.who, message_of(error), launch.error_file);
  }
  if (group->size() == 1) return work(*group);

  if (group->rank() != 0) {
    std::fflush(stdout);
    if (const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC); nowhere >= 0) {
      dup2(nowhere, STDOUT_FILENO);
      close(nowhere);
    }
  }
  try {
    const int status = work(*group);
    group->at("the end");
    group->barrier();  // a rank that ends early would fail the others
    return status;
  } catch (const Stopped&) {
    if (group->rank() == 0) throw;
    return 128 + SIGTERM;  // rank 0 says it
  } catch (const std::exception& error) {
    leave(*group, error);
  }
}

void leave(Group& group, const std::exception& error) {
  const std::string sentence = message_of(error);
  const std::string who = group.size() > 1 ? fmt::format("rank {}: ", group.rank()) : "";
  write_error_file(environment("TORCHELASTIC_ERROR_FILE").value_or(""), who + sentence);
  std::fflush(stdout);
  std::fputs(fmt::format("lamina: {}{}\n", who, sentence).c_str(), stderr);
  std::fflush(stderr);
  group.give_up(sentence);
  _exit(kGroupFailed);
}

}  // namespace lamina
