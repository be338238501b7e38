// lamina forward: the bare function on given inputs, for anyone who wants to compare it with anything.
#include <fmt/format.h>

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/models/registry.h"
#include "lamina/tensor/tensor_file.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

// Keeps what the tapped sites saw, under "SITE.before" and "SITE.after", and what neurons were, under
// "SITE.linear" and the like.
class Recorder : public Tap {
 public:
  Recorder(const Blueprint& blueprint, const std::vector<std::string>& sites) : blueprint_(blueprint) {
    for (const std::string& site : sites) {
      if (site == "all") {
        for (Site s : blueprint.present()) wanted_.push_back(s);
      } else if (site == "end") {
        end_ = true;
      } else if (site == "neurons") {
        neurons_ = true;
      } else {
        wanted_.push_back(blueprint.site(site));
      }
    }
  }
  void saw(Site site, const Tensor& before, const Tensor& after) override {
    if (std::ranges::find(wanted_, site) == wanted_.end()) return;
    const std::string& path = blueprint_.part(site).path;
    kept.emplace_back(path + ".before", before.contiguous());
    kept.emplace_back(path + ".after", after.contiguous());
  }
  bool reads_neurons(Site) const override { return neurons_; }
  Tensor neurons(Site site, NeuronPlace place, const Tensor& values) override {
    kept.emplace_back(fmt::format("{}.{}", blueprint_.part(site).path, place_name(place)),
                      values.contiguous());
    return values;
  }
  void saw_end(const Tensor& residual, const Tensor& normed) override {
    if (!end_) return;
    kept.emplace_back("end.before_norm", residual.contiguous());
    kept.emplace_back("end.after_norm", normed.contiguous());
  }
  std::vector<std::pair<std::string, Tensor>> kept;

 private:
  const Blueprint& blueprint_;
  std::vector<Site> wanted_;
  bool end_ = false, neurons_ = false;
};

}  // namespace

int run_forward(int argc, char** argv) {
  CLI::App app(
      "Run a model on tensors from a file and write its logits.\n\n"
      "Example: lamina forward MODEL --inputs in.safetensors -o out.safetensors --dtype float64 --tap "
      "all,end\n"
      "`input_ids` is [batch, tokens] of integers; `attention_mask`, if there, has its shape. Written: "
      "`logits`, and for each\n"
      "tapped site SITE.before and SITE.after; for neurons SITE.gate (where there is one), SITE.linear, "
      "SITE.post.",
      "forward");
  fs::path model, inputs, out;
  std::string taps, dtype = "float32", drop;
  int threads = 1;
  app.add_option("MODEL", model, "folder or GGUF file")->required();
  app.add_option("--inputs", inputs, "safetensors file")->required();
  app.add_option("-o,--output", out, "safetensors file to write")->required();
  app.add_option("--tap", taps,
                 "sites, comma-separated; `all` for every part, `end` for the last norm, "
                 "`neurons` for those of every feed-forward");
  app.add_option("--dtype", dtype, "float32 or float64");
  app.add_option("--skip", drop, "parts to skip in this pass, as --drop in apply");
  app.add_option("--threads", threads, "threads")->check(CLI::Range(1, 1024));
  parse(app, argc, argv);
  const auto type = dtype_from_name(dtype);
  if (type != DType::f32 && type != DType::f64)
    fail("--dtype {}: float32 and float64 are possible", in_quotes(dtype));

  // The inputs, and the files of the model's folder, would be gone.
  for (const fs::path& input : {model, inputs, model / out.filename()}) {
    if (fs::exists(out) && fs::exists(input) && fs::equivalent(out, input))
      fail("{}: belongs to the input; name another file for the output", out.string());
  }
  Terminal terminal({.quiet = true});
  const InferenceMode evaluating;
  use_threads(threads);
  const Opened opened = open(model);
  const TensorFile file(inputs);
  const Stored ids = file.stored("input_ids");
  if (ids.shape.size() != 2 || (ids.dtype != DType::i64 && ids.dtype != DType::i32))
    fail("{}: input_ids must be [batch, tokens] of int64 or int32", inputs.string());
  Inputs in{.ids = load(ids, scalar_type(ids.dtype)).to(at::kLong)};
  if (in.ids.numel() == 0) fail("{}: input_ids is empty", inputs.string());
  if (in.ids.min().item<int64_t>() < 0 || in.ids.max().item<int64_t>() >= opened.blueprint.vocabulary) {
    fail("{}: input_ids holds ids outside 0 to {}", inputs.string(), opened.blueprint.vocabulary - 1);
  }
  if (const auto mask = file.find("attention_mask")) {
    if (mask->shape != ids.shape)
      fail("{}: attention_mask has another shape than input_ids", inputs.string());
    in.padding = load(*mask, scalar_type(mask->dtype)).to(at::kBool);
  }
  AtomicFile output(out);  // now: a place that cannot be written is refused before the work
  const auto net = build_model(opened, {.dtype = scalar_type(*type)});
  struct SkippingRecorder : Recorder {
    using Recorder::Recorder;
    std::optional<Skip> skip;
    bool skips(Site site) const override { return skip && skip->skips(site); }
  } tap(opened.blueprint, taps.empty() ? std::vector<std::string>{} : split(taps, ','));
  if (!drop.empty()) tap.skip.emplace(opened.blueprint, plan_from_list(drop, opened.blueprint));
  const Tensor logits = net->run(in, tap);
  std::vector<std::pair<std::string, Tensor>> tensors = {{"logits", logits.contiguous()}};
  for (auto& entry : tap.kept) tensors.push_back(std::move(entry));
  const Watch watch = terminal.watch();
  watch.report({"write", 0, 0, ""});
  if (watch.stop.stop_requested()) throw Stopped{};
  save_tensors(output, tensors);
  return Status::ok;
}

}  // namespace lamina::cli
