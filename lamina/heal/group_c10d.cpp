// The group over c10d: how ranks find each other, its collectives, and who is named when one of them is gone.
#include <arpa/inet.h>
#include <c10/util/Logging.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <future>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/heal/impl/backend.h"
#include "lamina/heal/impl/buckets.h"

namespace lamina {

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto kBeat = 400ms;
constexpr auto kSilence = 1300ms;   // three beats: who says nothing for so long is gone, or stopped
constexpr auto kPatience = 1800ms;  // with the store itself
constexpr auto kLinger = 500ms;     // of the rank that serves the store, for others to read from it why
constexpr int64_t kHostMemoryLimit = int64_t{2} << 30;
constexpr auto kLost = 60s;  // without a beat, in a wait that has no other limit
constexpr const char* kCause = "cause";
constexpr const char* kTimedOut = "timed out";

std::string key(const char* what, int rank) {
  return fmt::format("{}/{}", what, rank);
}

std::string first_line(const std::exception& error) {
  std::string text = message_of(error);
  text = text.substr(0, text.find('\n'));
  // "[SOURCE FILE:LINE] what happened. More"
  if (text.starts_with('[') && text.find("] ") != text.npos) text.erase(0, text.find("] ") + 2);
  return text.substr(0, text.find(". "));
}

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

// Where a number of a process means that process.
std::string machine() {
  std::error_code error;
  const auto numbers = std::filesystem::read_symlink("/proc/self/ns/pid", error);
  return host_name() + " " + numbers.string();
}

// The other ranks' processes on this machine, held so that a number given anew is never taken for one of
// them.
class Neighbours {
 public:
  Neighbours(const Store& store, const Place& own) {
    for (int rank = 0; rank < own.size; ++rank) {
      const std::string said = store->get_to_str(key("process", rank));
      const size_t space = said.rfind(' ');
      const bool near = rank != own.rank && said.substr(0, space) == machine();
      held_.push_back(near ? int(syscall(SYS_pidfd_open, std::stoi(said.substr(space + 1)), 0)) : -1);
    }
  }
  ~Neighbours() {
    for (int held : held_) {
      if (held >= 0) close(held);
    }
  }
  // A rank that all others have given up waiting for: it would stay behind, stopped or in a loop.
  void end(int rank) const {
    if (held_[rank] >= 0) syscall(SYS_pidfd_send_signal, held_[rank], SIGKILL, nullptr, 0);
  }

 private:
  std::vector<int> held_;
};

// A rank tells the store, several times a second, that it lives and where it is. That goes over a connection
// of its own: one that waits for a key holds its client.
class Heart {
 public:
  Heart(Store store, int rank, int size) : store_(std::move(store)), rank_(rank) {
    for (int other = 0; other < size; ++other) keys_.push_back(key("beat", other));
    heard_.assign(size_t(size), {});
    beat();
    thread_ = std::thread([this] { live(); });
  }
  ~Heart() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  void entered(std::string doing) {
    const std::lock_guard lock(mutex_);
    ++calls_;
    doing_ = std::move(doing);
  }
  void at(std::string doing) {
    const std::lock_guard lock(mutex_);
    doing_ = std::move(doing);
  }
  // From now on the other hearts are listened to.
  void watch() {
    const std::lock_guard lock(mutex_);
    watching_ = true;
    answered_ = Clock::now();
    for (Heard& heard : heard_) heard.when = Clock::now();
  }
  void look_away() {
    const std::lock_guard lock(mutex_);
    watching_ = false;
  }
  // Why there is nothing to wait for any more, if so: a rank has been silent for so long, or the store.
  std::string lost(std::chrono::milliseconds limit) {
    const std::lock_guard lock(mutex_);
    if (!cause_.empty()) return cause_;
    const auto now = Clock::now();
    if (now - answered_ > (gone_ ? std::min<std::chrono::milliseconds>(limit, kPatience) : limit)) {
      return "the store does not answer any more";
    }
    std::vector<size_t> silent;
    for (size_t rank = 0; rank < heard_.size(); ++rank) {
      if (int(rank) != rank_ && now - heard_[rank].when > limit) silent.push_back(rank);
    }
    if (silent.empty()) return "";
    return fmt::format("rank{} {} stopped answering", silent.size() == 1 ? "" : "s", fmt::join(silent, ", "));
  }
  // What another rank had found out when this one last looked: the store may be gone by now.
  std::string cause() {
    const std::lock_guard lock(mutex_);
    return cause_;
  }

 private:
  void beat() {
    std::string line;
    {
      const std::lock_guard lock(mutex_);
      line = fmt::format("{} {} {}", beats_++, calls_, doing_);
    }
    store_->set(key("beat", rank_), std::vector<uint8_t>(line.begin(), line.end()));
  }
  void live() {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, kBeat, [&] { return done_; })) {
      lock.unlock();
      try {
        beat();
        if (store_->check({kCause})) {
          const std::string cause = store_->get_to_str(kCause);
          const std::lock_guard here(mutex_);
          cause_ = cause;
        }
        listen();
      } catch (const std::exception&) {
        const std::lock_guard here(mutex_);
        gone_ = true;  // the store, and with it whoever would read this
        return;
      }
      lock.lock();
    }
  }

  void listen() {
    {
      const std::lock_guard lock(mutex_);
      answered_ = Clock::now();
      if (!watching_) return;
    }
    const auto beats = store_->multiGet(keys_);
    const std::lock_guard lock(mutex_);
    for (size_t rank = 0; rank < beats.size(); ++rank) {
      if (beats[rank] != heard_[rank].beat) heard_[rank] = {beats[rank], Clock::now()};
    }
  }

  struct Heard {
    std::vector<uint8_t> beat = {};
    Clock::time_point when = Clock::now();
  };

  Store store_;
  int rank_;
  std::vector<std::string> keys_;
  std::mutex mutex_;
  std::vector<Heard> heard_;
  Clock::time_point answered_ = Clock::now();
  bool watching_ = false, gone_ = false;
  std::condition_variable wake_;
  bool done_ = false;
  int64_t beats_ = 0, calls_ = 0;
  std::string doing_ = "the start", cause_;
  std::thread thread_;
};

struct Beat {
  int64_t number = -1, calls = 0;
  std::string doing = {};
};

Beat beat_of(const Store& store, int rank) {
  const std::string text = store->get_to_str(key("beat", rank));
  Beat beat;
  size_t end = 0;
  beat.number = std::stoll(text, &end);
  const size_t space = text.find(' ', end + 1);
  beat.calls = std::stoll(text.substr(end + 1, space - end - 1));
  beat.doing = text.substr(space + 1);
  return beat;
}

class Ranks;
std::atomic<Ranks*> g_ranks = nullptr;

class Ranks final : public Group {
 public:
  Ranks(Place place, GroupOptions options, Store store, Backend backend)
      : place_(std::move(place)),
        options_(std::move(options)),
        store_(std::move(store)),
        backend_(std::move(backend)),
        neighbours_(std::make_shared<Neighbours>(store_, place_)),
        heart_(std::make_unique<Heart>(store_->clone(), place_.rank, place_.size)) {
    g_ranks = this;
    // Gloo ends the process when ranks call different collectives; at least with a sentence.
    earlier_ = std::set_terminate([] {
      try {
        if (const auto error = std::current_exception()) std::rethrow_exception(error);
        fail("ended without an exception");
      } catch (const std::exception& error) {
        if (Ranks* ranks = g_ranks) {
          leave(*ranks, Error(fmt::format("the ranks asked each other for different things at {} ({})",
                                          ranks->doing(), first_line(error))));
        }
      } catch (...) {
      }
      std::abort();
    });
  }
  ~Ranks() override {
    std::set_terminate(earlier_);
    g_ranks = nullptr;
  }

  int rank() const override { return place_.rank; }
  int size() const override { return place_.size; }
  int local_rank() const override { return place_.local_rank; }
  void at(std::string doing) override {
    heart_->at(doing);
    Group::at(std::move(doing));
  }

  void broadcast(Tensor& tensor, int root) override {
    in_place(tensor, [&](std::vector<Tensor>& sent) {
      c10d::BroadcastOptions how;
      how.rootRank = root;
      return backend_->broadcast(sent, how);
    });
  }

  void sum(Tensor& tensor) override {
    in_place(tensor, [&](std::vector<Tensor>& sent) { return backend_->allreduce(sent); });
  }

  std::vector<Tensor> gather(const Tensor& tensor) override {
    constexpr int64_t kMostDimensions = 14;
    if (tensor.dim() > kMostDimensions) fail("a tensor of {} dimensions cannot be gathered", tensor.dim());
    // Type, dimensions and sizes first; then bytes, padded to the longest.
    Tensor shape = at::zeros({kMostDimensions + 2}, at::kLong);
    auto* says = shape.mutable_data_ptr<int64_t>();
    says[0] = int64_t(tensor.scalar_type());
    says[1] = tensor.dim();
    std::copy(tensor.sizes().begin(), tensor.sizes().end(), says + 2);
    const Tensor shapes = all(shape).view({size(), -1});

    struct Sent {
      std::vector<int64_t> sizes;
      int64_t bytes;
    };
    std::vector<Sent> sent;
    int64_t longest = 0;
    for (int rank = 0; rank < size(); ++rank) {
      const int64_t* row = shapes.const_data_ptr<int64_t>() + rank * shapes.size(1);
      if (row[0] != says[0]) fail("rank {} gathers another type of numbers than rank {}", rank, this->rank());
      Sent one{.sizes = {row + 2, row + 2 + row[1]}, .bytes = tensor.element_size()};
      for (int64_t count : one.sizes) one.bytes *= count;
      longest = std::max(longest, one.bytes);
      sent.push_back(std::move(one));
    }
    Tensor padded = at::zeros({longest}, at::kByte);
    const Tensor own = tensor.detach().to(at::kCPU).contiguous();
    if (own.numel() > 0) padded.narrow(0, 0, own.numel() * own.element_size()).copy_(bytes_of(own));
    const Tensor together = longest > 0 ? all(padded).view({size(), -1}) : Tensor();
    std::vector<Tensor> tensors;
    for (int rank = 0; rank < size(); ++rank) {
      Tensor one = at::empty(sent[rank].sizes, tensor.options().device(at::kCPU).requires_grad(false));
      if (sent[rank].bytes > 0) bytes_of(one).copy_(together[rank].narrow(0, 0, sent[rank].bytes));
      tensors.push_back(one.to(tensor.device()));
    }
    return tensors;
  }

  // Has no limit of time while all hearts beat: one rank may write or measure for an hour.
  void barrier() override {
    c10d::BarrierOptions how;
    how.timeout = std::chrono::hours(24 * 365);
    guarded([&] {
      auto work = backend_->barrier(how);
      heart_->watch();
      // Less the time in which the cause is looked for.
      const auto limit = std::max<std::chrono::milliseconds>(
          std::min<std::chrono::milliseconds>(options_.timeout, kLost) - kSilence, kSilence);
      for (auto pause = 1ms; !work->isCompleted(); pause = std::min(2 * pause, 50ms)) {
        if (const std::string lost = heart_->lost(limit); !lost.empty()) fail("{}; timed out", lost);
        std::this_thread::sleep_for(pause);
      }
      heart_->look_away();
      return work;
    });
  }

  std::unique_ptr<Gradients> gradients(std::vector<std::pair<std::string, Tensor>> leaves) override {
    int64_t bytes = 0;
    bool accelerator = false;
    for (const auto& [name, leaf] : leaves) {
      accelerator |= !leaf.device().is_cpu();
      bytes += leaf.numel() * leaf.element_size();
    }
    if (accelerator && !nccl_) {
      nccl_ = nccl_backend(c10::make_intrusive<c10d::PrefixStore>("nccl", store_), place_, options_);
      if (!nccl_ && bytes > kHostMemoryLimit) {
        fail(
            "{} of gradients would cross host memory each step, because this build has no NCCL; train with "
            "--lora, or on one GPU",
            human_bytes(uint64_t(bytes)));
      }
    }
    return buckets(std::move(leaves), [this](const Tensor& flat) { return start_sum(flat); });
  }

  void give_up(const std::string& sentence) override {
    within(kPatience, [store = store_, own = place_, sentence, broken = broken_] {
      if (!broken) store->compareSet(kCause, "", fmt::format("rank {} gave up: {}", own.rank, sentence));
      store->set(key("left", own.rank), "1");
      if (own.agent || own.rank != 0) return std::string();
      for (const auto end = Clock::now() + kLinger; Clock::now() < end; std::this_thread::sleep_for(50ms)) {
        int left = 0;
        for (int rank = 0; rank < own.size; ++rank) left += store->check({key("left", rank)});
        if (left == own.size) break;
      }
      return std::string();
    });
  }

 private:
  static Tensor bytes_of(const Tensor& tensor) {
    return at::from_blob(tensor.data_ptr(), {tensor.numel() * tensor.element_size()}, at::kByte);
  }

  template <class Call>
  void in_place(Tensor& tensor, Call call) {
    const Tensor plain = tensor.detach().to(at::kCPU).contiguous();
    std::vector<Tensor> sent = {plain};
    guarded([&] { return call(sent); });
    const at::NoGradGuard no_gradients;
    if (!plain.is_alias_of(tensor)) tensor.detach().copy_(plain);
  }

  Tensor all(Tensor own) {
    Tensor out = at::empty({size() * own.numel()}, own.options());
    guarded([&] { return backend_->_allgather_base(out, own); });
    return out;
  }

  std::function<void()> start_sum(const Tensor& flat) {
    // Called in the middle of backward: what goes wrong is thrown by the wait.
    try {
      const bool on_gpu = !flat.device().is_cpu();
      const Tensor sent = on_gpu && !nccl_ ? flat.to(at::kCPU) : flat;
      std::vector<Tensor> tensors = {sent};
      const auto work = (on_gpu && nccl_ ? nccl_ : backend_)->allreduce(tensors);
      return [this, flat, sent, work] {
        guarded([&] { return work; });
        if (!sent.is_same(flat)) flat.copy_(sent);
      };
    } catch (const std::exception& error) {
      const std::string text = first_line(error);
      return [this, text] { guarded([&]() -> c10::intrusive_ptr<c10d::Work> { throw Error(text); }); };
    }
  }

  template <class Start>
  void guarded(Start start) {
    if (broken_) fail("the group of ranks is broken; start the run again");
    heart_->entered(doing());
    const auto began = Clock::now();
    try {
      start()->wait();
    } catch (const std::exception& error) {
      broken_ = true;
      const double waited = std::chrono::duration<double>(Clock::now() - began).count();
      const std::string where = doing().empty() ? "" : fmt::format(" (rank {} was at {})", rank(), doing());
      fail("{}{}; start the run again, it goes on from its last checkpoint",
           cause_of(first_line(error), waited), where);
    }
  }

  // What `ask` says, or nothing when the store does not answer in time.
  static std::optional<std::string> within(std::chrono::milliseconds patience,
                                           std::function<std::string()> ask) {
    const auto answer = std::make_shared<std::promise<std::string>>();
    auto future = answer->get_future();
    // Left behind when it hangs; the process is about to end.
    std::thread([answer, ask = std::move(ask)] {
      try {
        answer->set_value(ask());
      } catch (...) {
        answer->set_exception(std::current_exception());
      }
    }).detach();
    if (future.wait_for(patience) != std::future_status::ready) return std::nullopt;
    try {
      return future.get();
    } catch (const std::exception&) {
      return std::nullopt;
    }
  }

  std::string cause_of(const std::string& seen, double waited) {
    const bool timed_out =
        seen.find("imed out") != std::string::npos || seen.find("imeout") != std::string::npos;
    const std::string waiting = timed_out ? fmt::format(" after {}", human_seconds(waited)) : "";
    const auto found =
        within(kPatience, [store = store_, own = place_, near = neighbours_, seen, timed_out, waiting] {
          return find_cause(store, own, *near, seen, timed_out, waiting);
        });
    if (found) return *found;
    if (std::string cause = heart_->cause(); !cause.empty()) return cause;
    if (place_.agent) return fmt::format("torchrun's store does not answer any more ({})", seen);
    if (timed_out && place_.rank != 0) neighbours_->end(0);
    return place_.rank == 0
               ? fmt::format("no rank can be named ({})", seen)
               : fmt::format("rank 0 {}{}", timed_out ? "stopped answering" : "is gone", waiting);
  }

  // The first who finds out tells the others.
  static std::string find_cause(const Store& store, const Place& own, const Neighbours& neighbours,
                                const std::string& seen, bool timed_out, std::string waiting) {
    const auto named = [&](int rank) {
      return own.one_machine() ? std::to_string(rank)
                               : fmt::format("{} (on {})", rank, store->get_to_str(key("host", rank)));
    };
    // A rank that waited for too long closes its connections, which is all that the others then see.
    if (timed_out) store->set(kTimedOut, waiting);
    const auto known = [&] { return store->check({kCause}) ? store->get_to_str(kCause) : std::string(); };
    std::vector<Beat> before;
    for (int rank = 0; rank < own.size; ++rank) before.push_back(beat_of(store, rank));
    for (const auto end = Clock::now() + kSilence; Clock::now() < end; std::this_thread::sleep_for(50ms)) {
      if (std::string cause = known(); !cause.empty()) return cause;
    }
    if (!timed_out && store->check({kTimedOut})) {
      timed_out = true;
      waiting = store->get_to_str(kTimedOut);
    }
    std::vector<std::string> silent;
    int last = own.rank;
    std::vector<Beat> after;
    for (int rank = 0; rank < own.size; ++rank) {
      after.push_back(beat_of(store, rank));
      if (after[rank].number == before[rank].number) {
        silent.push_back(named(rank));
        if (timed_out) neighbours.end(rank);
        store->set(key("left", rank), "1");  // nobody need stay for it
      }
      if (after[rank].calls < after[last].calls) last = rank;
    }
    std::string cause;
    if (!silent.empty()) {
      cause = fmt::format("rank{} {} {}{}", silent.size() == 1 ? "" : "s", fmt::join(silent, ", "),
                          timed_out            ? "stopped answering"
                          : silent.size() == 1 ? "was killed or ended"
                                               : "were killed or ended",
                          waiting);
    } else if (after[last].calls < after[own.rank].calls) {
      if (timed_out) {
        neighbours.end(last);
        store->set(key("left", last), "1");
      }
      cause = fmt::format("rank {} lives but is still at {}{}", named(last), after[last].doing, waiting);
    } else if (std::any_of(after.begin(), after.end(),
                           [&](const Beat& beat) { return beat.doing != after[0].doing; })) {
      std::vector<std::string> places;
      for (int rank = 0; rank < own.size; ++rank) {
        places.push_back(fmt::format("rank {} at {}", named(rank), after[rank].doing));
      }
      cause = fmt::format("the ranks wait for each other at different places{}: {}", waiting,
                          fmt::join(places, ", "));
    } else {
      cause = fmt::format("rank {} lost its connection to the others{} ({})", own.rank, waiting, seen);
    }
    const std::string agreed = store->compareSet(kCause, "", cause);
    return agreed.empty() ? cause : agreed;
  }

  Place place_;
  GroupOptions options_;
  Store store_;
  Backend backend_, nccl_;
  std::shared_ptr<const Neighbours> neighbours_;
  std::unique_ptr<Heart> heart_;
  std::terminate_handler earlier_ = nullptr;
  bool broken_ = false;
};

// A socket that only this machine can reach. The store's own listens on every interface, and it asks nobody
// for a password.
int listen_on_loopback(int port) {
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) fail("no socket could be made: {}", std::strerror(errno));
  const int on = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(uint16_t(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(descriptor, 128) != 0) {
    const int why = errno;
    close(descriptor);
    fail("port {} of this machine cannot be had ({}); does another job use it? choose another MASTER_PORT",
         port, std::strerror(why));
  }
  return descriptor;
}

Store store_for(const Place& place, const GroupOptions& options) {
  const bool serves = !place.agent && place.rank == 0;
  const bool loopback = place.address == "localhost" || place.address.starts_with("127.");
  c10d::TCPStoreOptions how;
  how.port = uint16_t(place.port);
  how.timeout = options.arrival;
  how.numWorkers = size_t(place.size);
  how.isServer = serves;
  how.waitWorkers = false;  // for arrivals, below, with a better message
  if (serves && loopback) how.masterListenFd = listen_on_loopback(place.port);
  Store store;
  try {
    store = c10::make_intrusive<c10d::TCPStore>(loopback ? "127.0.0.1" : place.address, how);
  } catch (const std::exception& error) {
    const std::string why = first_line(error);
    if (serves) {
      fail("port {} of this machine cannot be had ({}); does another job use it? choose another MASTER_PORT",
           place.port, why);
    }
    fail("no store answers at {}:{} within {} s; {}", place.address, place.port, options.arrival.count(),
         place.agent ? "is torchrun still running?" : "was rank 0 started, with the same MASTER_PORT?");
  }
  return c10::make_intrusive<c10d::PrefixStore>(fmt::format("lamina/{}/{}", place.run, place.attempt), store);
}

void arrive(const Store& store, const Place& place, const GroupOptions& options) {
  try {
    if (store->add(key("here", place.rank), 1) > 1) {
      fail(
          "another process of run {} is already here as this rank: two jobs must not share {}:{}, and ranks "
          "cannot join a run that has started",
          in_quotes(place.run), place.address, place.port);
    }
    store->set(key("host", place.rank), host_name());
    store->set(key("process", place.rank), fmt::format("{} {}", machine(), getpid()));
    store->set(key("size", place.rank), std::to_string(place.size));
    std::vector<std::string> all;
    for (int rank = 0; rank < place.size; ++rank) all.push_back(key("size", rank));
    try {
      store->wait(all, options.arrival);
    } catch (const std::exception&) {
      std::vector<int> missing;
      for (int rank = 0; rank < place.size; ++rank) {
        if (!store->check({key("size", rank)})) missing.push_back(rank);
      }
      if (missing.empty()) throw;
      fail("rank{} {} did not arrive within {} s", missing.size() == 1 ? "" : "s", fmt::join(missing, ", "),
           options.arrival.count());
    }
    for (int rank = 0; rank < place.size; ++rank) {
      if (const std::string said = store->get_to_str(key("size", rank)); said != std::to_string(place.size)) {
        fail("rank {} was started for {} ranks, this one for {}", rank, said, place.size);
      }
    }
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail("the store at {}:{} went away at the start ({})", place.address, place.port, first_line(error));
  }
}

}  // namespace

std::unique_ptr<Group> join_at(const Place& place, const GroupOptions& options) {
  std::signal(SIGPIPE, SIG_IGN);  // of a connection to a rank that has gone: an exception says more
  setenv("TORCH_CPP_LOG_LEVEL", "FATAL", 0);  // c10d tells of every attempt to connect, with a backtrace
  c10::initLogging();
  const Store store = store_for(place, options);
  arrive(store, place, options);
  Backend backend;
  try {
    backend = gloo_backend(c10::make_intrusive<c10d::PrefixStore>("gloo", store), place, options);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail(
        "the ranks could not connect with each other ({}); name the network's interface with "
        "GLOO_SOCKET_IFNAME",
        first_line(error));
  }
  auto group = std::make_unique<Ranks>(place, options, store, backend);
  group->barrier();  // from here on every rank's heart beats
  return group;
}

}  // namespace lamina
