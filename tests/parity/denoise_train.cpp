// Steps of a denoiser's training on tensors from a file, for the parity test and the benchmark: sample, time,
// text, target, one row a sample, again from the start when all were taken. Writes the weights, and prints
// losses and seconds of each step.
#include <fmt/format.h>

#include <cstdio>

#include "lamina/base/error.h"
#include "lamina/heal/denoise.h"
#include "lamina/heal/features.h"
#include "lamina/heal/train.h"
#include "lamina/models/registry.h"
#include "lamina/tensor/tensor_file.h"

namespace {

using namespace lamina;

class Rows : public Batches {
 public:
  Rows(const TensorFile& file, at::ScalarType type, bool channels_last) {
    const auto read = [&](const char* name) { return load(file.stored(name), type); };
    sample_ = read("sample"), time_ = read("time"), text_ = read("text"), target_ = read("target");
    if (channels_last) sample_ = sample_.contiguous(at::MemoryFormat::ChannelsLast);
  }
  Batch at(int64_t first, int64_t count) const override {
    const int64_t from = first % sample_.size(0);
    const auto rows = [&](const Tensor& all) { return all.narrow(0, from, count); };
    return {.inputs = {.sample = rows(sample_), .time = rows(time_), .text = rows(text_)},
            .targets = rows(target_),
            .first = first};
  }
  int64_t samples_per_epoch() const override { return sample_.size(0); }
  std::string digest() const override { return "rows"; }

 private:
  Tensor sample_, time_, text_, target_;
};

struct Arguments {
  std::string model, inputs, output;
  std::string dtype = "float64", teacher = {}, features = "plain";
  bool channels_last = false;
  TrainOptions training = {.steps = 20, .batch = 2};
};

void run(const Arguments& arguments) {
  use_threads(1);
  const at::ScalarType type = scalar_type(*dtype_from_name(arguments.dtype));
  const Rows rows(TensorFile(arguments.inputs), type, arguments.channels_last);
  Student student(open(arguments.model), {.dtype = type});
  Hook none;
  std::unique_ptr<Objective> objective = denoising();
  Hook* hook = &none;
  if (!arguments.teacher.empty()) {
    auto teaching = std::make_unique<Teaching>(
        build_model(open(arguments.teacher), {.dtype = type}), student.model(), rows,
        TeachingOptions{.mode = feature_mode_from_name(arguments.features), .look_every = 0});
    hook = &teaching->hook();
    objective = std::move(teaching);
  }
  const auto group = alone();
  const Trained trained = train(student, *objective, {.train = rows}, arguments.training, *hook, *group);
  std::string losses, objectives, seconds;
  for (const StepRecord& record : trained.curve) {
    const char* comma = record.step == 1 ? "" : ", ";
    losses += fmt::format("{}{:.17g}", comma, record.loss);
    objectives += fmt::format("{}{:.17g}", comma, record.objective);
    seconds += fmt::format("{}{:.4f}", comma, record.seconds);
  }
  fmt::print("{{\"losses\": [{}], \"objectives\": [{}], \"seconds\": [{}]}}\n", losses, objectives, seconds);
  std::vector<std::pair<std::string, Tensor>> weights;
  for (const Parameter& parameter : student.parameters())
    weights.emplace_back(parameter.name, parameter.value.detach());
  AtomicFile output(arguments.output);
  save_tensors(output, weights);
}

}  // namespace

// denoise_train MODEL INPUTS OUTPUT [--option value]...
int main(int argc, char** argv) {
  try {
    if (argc < 4 || argc % 2 != 0) fail("denoise_train MODEL INPUTS OUTPUT [--option value]...");
    Arguments arguments{.model = argv[1], .inputs = argv[2], .output = argv[3]};
    TrainOptions& training = arguments.training;
    for (int i = 4; i < argc; i += 2) {
      const std::string_view option = argv[i];
      const char* value = argv[i + 1];
      if (option == "--dtype")
        arguments.dtype = value;
      else if (option == "--teacher")
        arguments.teacher = value;
      else if (option == "--features")
        arguments.features = value;
      else if (option == "--layout")
        arguments.channels_last = std::string_view(value) == "channels-last";
      else if (option == "--autocast")
        training.autocast = value;
      else if (option == "--schedule")
        training.schedule = schedule_from_name(value);
      else if (option == "--steps")
        training.steps = std::stoll(value);
      else if (option == "--batch")
        training.batch = std::stoll(value);
      else if (option == "--accumulate")
        training.accumulate = std::stoll(value);
      else if (option == "--warmup")
        training.warmup = std::stoll(value);
      else if (option == "--lr")
        training.learning_rate = std::stod(value);
      else if (option == "--epsilon")
        training.epsilon = std::stod(value);
      else if (option == "--weight-decay")
        training.weight_decay = std::stod(value);
      else if (option == "--clip")
        training.clip = std::stod(value);
      else
        fail("no such option: {}", option);
    }
    run(arguments);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", message_of(error));
    return 1;
  }
  return 0;
}
