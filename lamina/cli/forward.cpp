// lamina forward: the bare function on given inputs, for anyone who wants to compare it with anything. What
// it reads and writes follows from what the model is.
#include <fmt/format.h>

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/models/clip/clip.h"
#include "lamina/models/registry.h"
#include "lamina/models/vae/vae.h"
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

using Named = std::vector<std::pair<std::string, Tensor>>;

// The tensors of the input file, by name.
class Given {
 public:
  Given(const fs::path& path, at::ScalarType type) : file_(path), type_(type) {}

  std::string where() const { return file_.path().string(); }
  bool has(std::string_view name) const { return file_.find(name).has_value(); }
  // [batch, tokens] of whole numbers, at least one.
  Tensor ids(std::string_view name) const {
    const Stored ids = file_.stored(name);
    if (ids.shape.size() != 2 || (ids.dtype != DType::i64 && ids.dtype != DType::i32))
      fail("{}: {} must be [batch, tokens] of int64 or int32", where(), name);
    const Tensor tensor = load(ids, scalar_type(ids.dtype)).to(at::kLong);
    if (tensor.numel() == 0) fail("{}: {} is empty", where(), name);
    return tensor;
  }
  // Of floating numbers, in the type of the arithmetic.
  Tensor floating(std::string_view name) const {
    const Stored stored = file_.stored(name);
    if (!is_floating(stored.dtype))
      fail("{}: {} holds {} where floating numbers were expected", where(), name, dtype_name(stored.dtype));
    return load(stored, type_);
  }
  std::optional<Tensor> mask(std::string_view name, at::IntArrayRef sizes) const {
    const auto stored = file_.find(name);
    if (!stored) return std::nullopt;
    const Tensor mask = load(*stored, scalar_type(stored->dtype)).to(at::kBool);
    if (mask.sizes() != sizes) fail("{}: {} has another shape than input_ids", where(), name);
    return mask;
  }

 private:
  TensorFile file_;
  at::ScalarType type_;
};

Inputs language_inputs(const Given& given, const Blueprint& blueprint) {
  Inputs in{.ids = given.ids("input_ids")};
  if (in.ids.min().item<int64_t>() < 0 || in.ids.max().item<int64_t>() >= blueprint.vocabulary)
    fail("{}: input_ids holds ids outside 0 to {}", given.where(), blueprint.vocabulary - 1);
  in.padding = given.mask("attention_mask", in.ids.sizes());
  return in;
}

Inputs denoiser_inputs(const Given& given) {
  Inputs in;
  in.sample = given.floating("sample");
  in.time = given.floating("time");
  in.text = given.floating("text");
  for (const char* name : {"text_embeds", "time_ids"}) {
    if (given.has(name)) in.added[name] = given.floating(name);
  }
  return in;
}

// What a text encoder gives; `last` is made with the tap, the rest without.
Named encoded(const clip::TextEncoder& encoder, const Given& given, Tap& tap) {
  const Tensor ids = given.ids("ids");
  const Tensor last = encoder.run({.ids = ids}, tap);
  const clip::TextEncoder::Encoded all = encoder.encode(ids);
  return {{"last", last}, {"penultimate", all.penultimate}, {"pooled", all.pooled}};
}

// Pixels to latents, latents to pixels, whichever of them are given.
Named coded(const vae::Autoencoder& autoencoder, const Given& given) {
  Named made;
  if (given.has("pixels")) made.emplace_back("latents", autoencoder.encode(given.floating("pixels")));
  if (given.has("latents")) made.emplace_back("pixels", autoencoder.decode(given.floating("latents")));
  if (made.empty()) fail("{}: holds neither pixels nor latents", given.where());
  return made;
}

// A pass of whatever the model is.
Named answers(const Model& model, const Given& given, Tap& tap) {
  if (const auto* encoder = dynamic_cast<const clip::TextEncoder*>(&model))
    return encoded(*encoder, given, tap);
  if (const auto* autoencoder = dynamic_cast<const vae::Autoencoder*>(&model))
    return coded(*autoencoder, given);
  if (model.blueprint().family == "unet") return {{"prediction", model.run(denoiser_inputs(given), tap)}};
  if (model.blueprint().vocabulary > 0)
    return {{"logits", model.run(language_inputs(given, model.blueprint()), tap)}};
  return {{"output", model.run({.sample = given.floating("sample")}, tap)}};
}

}  // namespace

int run_forward(int argc, char** argv) {
  CLI::App app(
      "Run a model on tensors from a file and write what it gives.\n\n"
      "Example: lamina forward MODEL --inputs in.safetensors -o out.safetensors --dtype float64 --tap "
      "all,end\n"
      "`input_ids` is [batch, tokens] of integers; `attention_mask`, if there, has its shape. Written: "
      "`logits`, and for each\n"
      "tapped site SITE.before and SITE.after; for neurons SITE.gate (where there is one), SITE.linear, "
      "SITE.post.\n"
      "A text encoder reads `ids` and writes `last`, `penultimate` and `pooled`. An autoencoder reads "
      "`pixels`, `latents` or\n"
      "both, and writes the other. A U-Net reads `sample`, `time`, `text` and, of SDXL, `text_embeds` and "
      "`time_ids`, and\n"
      "writes `prediction`.",
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
  const Given given(inputs, scalar_type(*type));
  AtomicFile output(out);  // now: a place that cannot be written is refused before the work
  const auto net = build_model(opened, {.dtype = scalar_type(*type)});
  struct SkippingRecorder : Recorder {
    using Recorder::Recorder;
    std::optional<Skip> skip;
    bool skips(Site site) const override { return skip && skip->skips(site); }
  } tap(opened.blueprint, taps.empty() ? std::vector<std::string>{} : split(taps, ','));
  if (!drop.empty()) tap.skip.emplace(opened.blueprint, plan_from_list(drop, opened.blueprint));
  Named tensors = answers(*net, given, tap);
  for (auto& [name, tensor] : tensors) tensor = tensor.contiguous();
  for (auto& entry : tap.kept) tensors.push_back(std::move(entry));
  const Watch watch = terminal.watch();
  watch.report({"write", 0, 0, ""});
  if (watch.stop.stop_requested()) throw Stopped{};
  save_tensors(output, tensors);
  return Status::ok;
}

}  // namespace lamina::cli
