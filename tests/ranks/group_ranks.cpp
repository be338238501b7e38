// One rank of the tests of the process group. What goes wrong on purpose (LAMINA_FAULT=rank:step:kind) is
// written here, and in no program that anybody uses.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/heal/group.h"

namespace {

using namespace lamina;

void expect(bool right, std::string_view what) {
  if (!right) fail("wrong: {}", what);
}

Tensor numbers(std::vector<double> values, at::ScalarType type) {
  return at::tensor(values, at::kDouble).to(type);
}

int calls(Group& group) {
  const int rank = group.rank(), size = group.size();
  const double ranks = size * (size + 1) / 2.0;  // of 1, 2, ...
  for (const auto type : {at::kDouble, at::kFloat, at::kLong, at::kInt, at::kByte}) {
    Tensor sum = numbers({1.0 + rank, 2.0 * (1 + rank), 0}, type);
    group.sum(sum);
    expect(sum.equal(numbers({ranks, 2 * ranks, 0}, type)), "sum");
    for (int root = 0; root < size; ++root) {
      Tensor sent = numbers({rank == root ? 7.0 + root : 0, 3}, type);
      group.broadcast(sent, root);
      expect(sent.equal(numbers({7.0 + root, 3}, type)), "broadcast");
    }
  }
  for (const auto type : {at::kHalf, at::kBFloat16}) {
    Tensor sum = numbers({1.0 + rank}, type);
    group.sum(sum);
    expect(sum.equal(numbers({ranks}, type)), "sum of short numbers");
  }
  // A view whose numbers do not lie side by side, and a scalar.
  Tensor board = at::zeros({3, 4}, at::kDouble);
  Tensor column = board.select(1, 2);
  column.fill_(rank + 1);
  group.sum(column);
  expect(
      board.select(1, 2).equal(at::full({3}, ranks, at::kDouble)) && board.sum().item<double>() == 3 * ranks,
      "sum of a column");
  Tensor scalar = at::full({}, int64_t{rank + 1}, at::kLong);
  group.sum(scalar);
  expect(scalar.dim() == 0 && scalar.item<int64_t>() == int64_t(ranks), "sum of a scalar");

  // Another size on each rank; rank 0 has nothing at all.
  const auto mine = [](int of) { return at::arange(of * 3, at::kDouble).view({of, 3}) + of; };
  const auto all = group.gather(mine(rank));
  expect(int(all.size()) == size, "gather");
  for (int of = 0; of < size; ++of) expect(all[of].equal(mine(of)), "gather of other sizes");
  const auto empty = group.gather(at::zeros({0, 5}, at::kLong));
  for (const Tensor& one : empty) expect(one.sizes() == at::IntArrayRef({0, 5}), "gather of nothing");
  const auto flags = group.gather(at::full({2}, rank % 2 == 0, at::kBool));
  for (int of = 0; of < size; ++of)
    expect(flags[of].equal(at::full({2}, of % 2 == 0, at::kBool)), "gather of flags");
  const auto points = group.gather(at::full({}, double(rank), at::kBFloat16));
  for (int of = 0; of < size; ++of)
    expect(points[of].item<double>() == of && points[of].dim() == 0, "gather of scalars");

  group.barrier();
  agree(group, {{"model", "a"}, {"data", "b"}});
  std::puts("calls: ok");
  return 0;
}

int disagree(Group& group) {
  const bool last = group.rank() == group.size() - 1;
  agree(group, {{"model", "the same"}, {"options", last ? "steps 5" : "steps 4"}});
  return 0;
}

// --- gradients

// A small language model whose embedding is its head, large enough for several buckets.
struct Net {
  explicit Net(at::ScalarType type) {
    const auto make = [&](at::IntArrayRef sizes, uint64_t seed) {
      return (random_normal(sizes, seed).to(type) * 0.1).requires_grad_(true);
    };
    embedding = make({3000, 64}, 1);  // 0.75 MB in float32
    up = make({1024, 64}, 2);
    middle = make({1024, 1024}, 3);
    down = make({64, 1024}, 4);
    bias = make({64}, 5);
  }
  Tensor embedding, up, middle, down, bias;
  std::vector<std::pair<std::string, Tensor>> leaves() const {
    return {{"embedding", embedding}, {"up", up}, {"middle", middle}, {"down", down}, {"bias", bias}};
  }
  // Sum over the tokens that count; `ids` [samples, tokens].
  Tensor loss(const Tensor& ids, int64_t first) const {
    const Tensor x = at::embedding(embedding, ids);
    const Tensor h = at::tanh(at::linear(at::tanh(at::linear(x, up)), middle));
    const Tensor logits = at::linear(x + at::linear(h, down, bias), embedding);
    Tensor targets = at::roll(ids, -1, 1).clone();
    // Another number of tokens counts in each sample.
    for (int64_t i = 0; i < ids.size(0); ++i) targets[i].narrow(0, 0, 1 + (first + i) % 5).fill_(-100);
    return at::cross_entropy_loss(logits.flatten(0, 1), targets.flatten(), {}, at::Reduction::Sum, -100);
  }
  int64_t counted(int64_t first, int64_t samples, int64_t tokens) const {
    int64_t count = 0;
    for (int64_t i = first; i < first + samples; ++i) count += tokens - 1 - i % 5;
    return count;
  }
};

constexpr int64_t kTokens = 12, kBatch = 8;

void compare(Group& group, const Net& got, const Net& expected, double bound, std::string_view what) {
  const auto left = got.leaves(), right = expected.leaves();
  double largest = 0;
  for (size_t i = 0; i < left.size(); ++i) {
    const Tensor a = left[i].second.grad(), b = right[i].second.grad();
    largest = std::max(largest, (a - b).abs().max().item<double>());
    for (const Tensor& other : group.gather(a.contiguous()))
      expect(other.equal(a), "ranks have the same gradients");
  }
  fmt::print("{}: difference {:.3g}\n", what, largest);
  if (!(largest <= bound)) fail("{}: {} differs by {}", what, group.size(), largest);
  double size = 0;
  for (const auto& [name, leaf] : right) size = std::max(size, leaf.grad().abs().max().item<double>());
  expect(size > 1e-3, "gradients are there at all");
}

int gradients(Group& group, at::ScalarType type, int accumulate) {
  const Tensor ids =
      at::arange(kBatch * kTokens * 3, at::kLong).mul(37).remainder(3000).view({3, kBatch, kTokens});
  Net whole(type), shared(type);
  const auto buckets = group.gradients(shared.leaves());
  const int64_t each = kBatch / group.size() / accumulate;
  for (int step = 0; step < 3; ++step) {
    for (const Net* net : {&whole, &shared}) {
      for (auto& [name, leaf] : net->leaves()) {
        // Both ways of zeroing.
        Tensor& gradient = const_cast<Tensor&>(leaf).mutable_grad();
        if (step == 1) gradient.zero_();
        if (step == 2) gradient = Tensor();
      }
    }
    const double count = double(whole.counted(0, kBatch, kTokens));
    (whole.loss(ids[step], 0) / count).backward();
    Tensor total = at::full({}, 0.0, at::kDouble);
    for (int micro = 0; micro < accumulate; ++micro) {
      const int64_t first = (group.rank() * accumulate + micro) * each;
      total += double(shared.counted(first, each, kTokens));
      if (micro == accumulate - 1) buckets->arm();
      (shared.loss(ids[step].narrow(0, first, each), first) / count).backward();
    }
    buckets->wait();
    group.sum(total);
    expect(total.item<double>() == count, "tokens are counted over ranks");
    compare(group, shared, whole, type == at::kDouble ? 1e-12 : 1e-6, fmt::format("step {}", step));
    // As an optimizer would.
    for (const Net* net : {&whole, &shared}) {
      for (const auto& [name, leaf] : net->leaves())
        leaf.detach().sub_(whole.leaves()[0].second.grad().mean());
    }
  }
  return 0;
}

// A leaf that is read twice, in graphs that run backward one inside the other.
int pieces(Group& group) {
  Tensor leaf = at::full({4}, 2.0, at::kDouble).requires_grad_(true);
  Tensor other = at::full({2}, 1.0, at::kDouble).requires_grad_(true);
  const auto buckets = group.gradients({{"leaf", leaf}, {"other", other}});
  for (int step = 0; step < 3; ++step) {
    leaf.mutable_grad() = other.mutable_grad() = Tensor();
    buckets->arm();
    ((leaf * leaf).sum() + other.sum()).backward();
    (leaf * double(group.rank())).sum().backward();  // the second piece
    buckets->wait();
    const double ranks = group.size() * (group.size() - 1) / 2.0;
    expect(leaf.grad().equal(at::full({4}, 4.0 * group.size() + ranks, at::kDouble)),
           "a gradient in two pieces");
    expect(other.grad().equal(at::full({2}, double(group.size()), at::kDouble)), "the other gradient");
  }
  std::puts("pieces: ok");
  return 0;
}

int unread(Group& group) {
  Tensor leaf = at::ones({4}, at::kDouble).requires_grad_(true);
  Tensor never = at::ones({4}, at::kDouble).requires_grad_(true);
  const auto buckets = group.gradients({{"read", leaf}, {"model.never.weight", never}});
  buckets->arm();
  leaf.sum().backward();
  buckets->wait();
  return 0;
}

// --- steps, in one of which something happens

void happen(Group& group, int step) {
  const char* fault = std::getenv("LAMINA_FAULT");
  const char* attempt = std::getenv("TORCHELASTIC_RESTART_COUNT");
  if (!fault || (attempt && std::stoi(attempt) > 0)) return;
  const auto words = split(fault, ':');
  if (std::stoi(words.at(0)) != group.rank() || std::stoi(words.at(1)) != step) return;
  const std::string& kind = words.at(2);
  if (kind == "kill") std::raise(SIGKILL);
  if (kind == "stop") std::raise(SIGSTOP);
  if (kind == "exit0") _exit(0);
  if (kind == "exit3") _exit(3);
  if (kind == "abort") std::abort();
  if (kind == "throw") fail("the disk is full");
  if (kind == "foreign") throw std::runtime_error("a foreign exception");
  if (kind == "hang") std::this_thread::sleep_for(std::chrono::seconds(60));
  if (kind == "other") {
    Tensor wrong = at::zeros({7}, at::kDouble);
    group.sum(wrong);
  }
  if (kind == "early") throw 0;  // returns from the work
}

int steps(Group& group) {
  Tensor leaf = at::ones({1000}, at::kDouble).requires_grad_(true);
  const auto buckets = group.gradients({{"leaf", leaf}});
  for (int step = 1; step <= 6; ++step) {
    group.at(fmt::format("step {}", step));
    leaf.mutable_grad() = Tensor();
    try {
      happen(group, step);
    } catch (int) {
      return 0;
    }
    buckets->arm();
    (leaf * leaf).sum().backward();
    buckets->wait();
    Tensor loss = at::ones({}, at::kDouble);
    group.sum(loss);
    expect(loss.item<double>() == group.size(), "the sum of losses");
    fmt::print("step {}\n", step);
    std::fflush(stdout);
    // Until the test has seen what it wants to see.
    const char* hold = std::getenv("LAMINA_HOLD");
    while (hold && std::filesystem::exists(hold)) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  fmt::print("done on {} ranks, attempt {}\n", group.size(),
             std::getenv("TORCHELASTIC_RESTART_COUNT") ? std::getenv("TORCHELASTIC_RESTART_COUNT") : "none");
  return 0;
}

// One rank is busy on its own for longer than any call may take; the others wait for it.
int solo(Group& group, int seconds) {
  group.at("step 3, alone");
  std::puts("step 2");
  std::fflush(stdout);
  happen(group, 3);
  if (group.rank() == 0) std::this_thread::sleep_for(std::chrono::seconds(seconds));
  group.barrier();
  fmt::print("waited for {}\n", group.size());
  return 0;
}

int run(Group& group, const std::string& what, const std::string& how) {
  if (what == "calls") return calls(group);
  if (what == "disagree") return disagree(group);
  if (what == "gradients") return gradients(group, at::kFloat, std::stoi(how));
  if (what == "gradients64") return gradients(group, at::kDouble, std::stoi(how));
  if (what == "pieces") return pieces(group);
  if (what == "unread") return unread(group);
  if (what == "steps") return steps(group);
  if (what == "solo") return solo(group, std::stoi(how));
  fail("{} is none of the cases", what);
}

}  // namespace

int main(int argc, char** argv) {
  use_threads(1);
  const std::string what = argc > 1 ? argv[1] : "", how = argc > 2 ? argv[2] : "1";
  try {
    const char* seconds = std::getenv("LAMINA_SECONDS");
    const std::chrono::seconds patience(seconds ? std::stoi(seconds) : 30);
    return together({.timeout = patience, .arrival = patience},
                    [&](Group& group) { return run(group, what, how); });
  } catch (const std::exception& error) {
    fmt::print(stderr, "lamina: {}\n", error.what());
    return 1;
  }
}
