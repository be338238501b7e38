// A pass of a U-Net on tensors from a file, for the parity tests and the benchmark: sample, time, text, and
// of SDXL text_embeds and time_ids; writes `prediction` and prints what the passes took.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/models/registry.h"
#include "lamina/tensor/tensor_file.h"

namespace {

using namespace lamina;

// A line of /proc/self/status, in bytes.
int64_t process_bytes(std::string_view key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key)) return std::stoll(line.substr(key.size() + 1)) * 1024;
  return 0;
}

struct Arguments {
  std::string model, inputs, output;
  std::string dtype = "float64", skip = {}, pack = {};
  int passes = 1;
};

void run(const Arguments& arguments) {
  const InferenceMode evaluating;
  use_threads(1);
  const auto type = dtype_from_name(arguments.dtype);
  if (!type) fail("no such type: {}", arguments.dtype);
  const int64_t empty = process_bytes("VmRSS");
  const Opened opened = open(arguments.model);
  const TensorFile file(arguments.inputs);
  const auto read = [&](const char* name) { return load(file.stored(name), scalar_type(*type)); };
  Inputs in;
  in.sample = read("sample"), in.time = read("time"), in.text = read("text");
  for (const char* name : {"text_embeds", "time_ids"})
    if (file.find(name)) in.added[name] = read(name);
  Weights::Options options{.dtype = scalar_type(*type)};
  if (!arguments.pack.empty()) options.packed = scalar_type(*dtype_from_name(arguments.pack));
  const auto net = build_model(opened, options);
  Skip tap(opened.blueprint);
  for (const std::string& path : split(arguments.skip, ','))
    if (!path.empty()) tap.add(opened.blueprint.site(path));
  Tensor prediction;
  std::string seconds, processor;
  for (int i = 0; i < arguments.passes; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const std::clock_t busy = std::clock();
    prediction = net->run(in, tap);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    processor += fmt::format("{}{:.4f}", i == 0 ? "" : ", ", double(std::clock() - busy) / CLOCKS_PER_SEC);
    seconds += fmt::format("{}{:.4f}", i == 0 ? "" : ", ", took.count());
  }
  fmt::print("{{\"seconds\": [{}], \"processor_seconds\": [{}], \"empty_bytes\": {}, \"peak_bytes\": {}}}\n",
             seconds, processor, empty, process_bytes("VmHWM"));
  AtomicFile output(arguments.output);
  save_tensors(output, {{"prediction", prediction.contiguous()}});
}

}  // namespace

// unet_forward MODEL INPUTS OUTPUT [--dtype float32|float64] [--skip PARTS] [--pack TYPE] [--passes N]
int main(int argc, char** argv) {
  try {
    if (argc < 4 || argc % 2 != 0) fail("unet_forward MODEL INPUTS OUTPUT [--option value]...");
    Arguments arguments{.model = argv[1], .inputs = argv[2], .output = argv[3]};
    for (int i = 4; i < argc; i += 2) {
      const std::string_view option = argv[i];
      if (option == "--dtype")
        arguments.dtype = argv[i + 1];
      else if (option == "--skip")
        arguments.skip = argv[i + 1];
      else if (option == "--pack")
        arguments.pack = argv[i + 1];
      else if (option == "--passes")
        arguments.passes = std::stoi(argv[i + 1]);
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
