// One rank of a training run on a tiny model: `train_ranks MODEL STATE CURVE [options]`. Rank 0 writes its
// curve, number by number, to the file CURVE. LAMINA_FAULT=rank:step:kind ends a rank before that step, here
// and in no program that anybody uses.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "lamina/base/file.h"
#include "lamina/base/hash.h"
#include "lamina/base/text.h"
#include "lamina/heal/train.h"
#include "tests/laws/tiny.h"

namespace {

using namespace lamina;

// Random tokens; another number of positions counts in each sample.
class Given final : public Batches {
 public:
  explicit Given(int64_t vocabulary) : vocabulary_(vocabulary) {}
  Batch at(int64_t first, int64_t count) const override {
    std::vector<Tensor> rows;
    for (int64_t i = first; i < first + count; ++i) {
      rows.push_back(tiny::batch(tiny::tokens(kLength, vocabulary_, uint64_t(100 + i))));
    }
    const Tensor ids = at::cat(rows), targets = at::full_like(ids, kNotLearnt);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t learnt = 2 + (first + i) % 7;
      targets[i].narrow(0, 0, learnt).copy_(ids[i].narrow(0, 1, learnt));
    }
    return {.inputs = {.ids = ids}, .targets = targets};
  }
  int64_t samples_per_epoch() const override { return 6; }
  std::string digest() const override { return fmt::format("given {}", vocabulary_); }

 private:
  static constexpr int64_t kLength = 9;
  int64_t vocabulary_;
};

class Faulty final : public Hook {
 public:
  explicit Faulty(const Group& group) {
    const char* fault = std::getenv("LAMINA_FAULT");
    if (!fault) return;
    const auto words = split(fault, ':');
    if (std::stoi(words.at(0)) == group.rank()) step_ = std::stoi(words.at(1)), kind_ = words.at(2);
  }
  void begin_step(int64_t step) override { now_ = step; }
  // In the middle of a step: others wait for gradients.
  void begin_pass(const Batch&) override {
    if (now_ != step_) return;
    if (kind_ == "kill") std::raise(SIGKILL);
    if (kind_ == "stop") std::raise(SIGSTOP);
    if (kind_ == "exit0") _exit(0);
    if (kind_ == "exit3") _exit(3);
    if (kind_ == "throw") fail("the disk is full");
  }

 private:
  int64_t step_ = -1, now_ = 0;
  std::string kind_;
};

int run(Group& group, const std::vector<std::string>& words) {
  const std::filesystem::path model = words.at(0), state = words.at(1), curve = words.at(2);
  const auto has = [&](std::string_view word) { return std::ranges::find(words, word) != words.end(); };
  Student::Options what{.dtype = has("float32") ? at::kFloat : at::kDouble};
  if (has("lora")) what.lora = LoraOptions{.rank = 3, .alpha = 6};
  Student student(open(model), what);
  const Given data(student.model().head().weight.size(0)), other(data);
  TrainOptions options{.steps = 8, .batch = 2, .accumulate = 4, .learning_rate = 3e-2, .warmup = 2};
  options.gradient_checkpointing = has("checkpointing");
  options.evaluate_every = 4;
  options.checkpoint_every = 2;
  options.state = state;
  options.resume = has("resume");
  Faulty hook(group);
  const auto objective = cross_entropy();
  const TrainData both{.train = data, .validation = &other, .validation_samples = 5};
  const Trained trained =
      train(student, *objective, both, options, hook, group, {}, [&](const StepRecord& record) {
        fmt::print("step {}\n", record.step);
        std::fflush(stdout);
      });

  // Every rank must have come to the same weights, to the bit.
  Sha256 hash;
  for (const Parameter& parameter : student.parameters()) {
    const Tensor plain = parameter.value.detach().contiguous();
    hash.add(Bytes(static_cast<const std::byte*>(plain.const_data_ptr()), plain.nbytes()));
  }
  agree(group, {{"weights at the end", hash.hex()}});
  if (group.rank() == 0) {
    std::string text;
    for (const StepRecord& record : trained.curve) {
      text += fmt::format("{} {:.17g} {:.17g} {:.17g} {}\n", record.step, record.loss, record.gradient_norm,
                          record.learning_rate, record.tokens);
    }
    for (const Evaluation& evaluation : trained.evaluations) {
      text +=
          fmt::format("evaluation {} {:.17g} {}\n", evaluation.step, evaluation.loss, evaluation.positions);
    }
    write_file(curve, text);
    fmt::print("from {} on {} ranks\n", trained.resumed_from, group.size());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  use_threads(1);
  try {
    const std::vector<std::string> words(argv + 1, argv + argc);
    if (words.size() == 2 && words[0] == "make") {  // a tiny model of each architecture, for the runs
      for (const Architecture* architecture : tiny::listed()) {
        const auto folder = std::filesystem::path(words[1]) / architecture->name;
        tiny::write(tiny::random_checkpoint(*architecture), folder);
        fmt::print("{}\n", folder.string());
      }
      return 0;
    }
    const char* seconds = std::getenv("LAMINA_SECONDS");
    const std::chrono::seconds patience(seconds ? std::stoi(seconds) : 30);
    return together({.timeout = patience, .arrival = patience},
                    [&](Group& group) { return run(group, words); });
  } catch (const std::exception& error) {
    fmt::print(stderr, "lamina: {}\n", error.what());
    return 1;
  }
}
