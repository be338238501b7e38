#include "lamina/methods/unmask/tagger.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/models/registry.h"

namespace lamina::unmask {

namespace {

constexpr std::string_view kKey = "lamina_tagger";
constexpr int64_t kLongest = int64_t{1} << 20;

// The stream behind each part, of a pass over `ids`.
class Streams : public Tap {
 public:
  void saw(Site site, const Tensor&, const Tensor& after) override { after_[site] = after; }
  std::map<Site, Tensor> take() { return std::move(after_); }

 private:
  std::map<Site, Tensor> after_;
};

std::map<Site, Tensor> streams(const Model& model, const Tensor& ids) {
  Streams tap;
  Stream stream = model.begin({.ids = ids});
  for (Site site : model.blueprint().present()) model.step(stream, site, tap);
  return tap.take();
}

}  // namespace

Feeding feeding_of(const Json& config, std::string_view what) {
  Feeding feeding;
  if (!json_has(config, kKey)) return feeding;
  const Json& json = config.at(std::string(kKey));
  const std::string here = fmt::format("{}: {}", what, kKey);
  if (!json.is_object()) fail("{} is {} where an object was expected", here, in_quotes(json.dump(), 40));
  check_keys(json, {"length", "overlap", "answer", "repeat"}, here);
  EncodeOptions& encode = feeding.encode;
  encode.length = json_integer_or(json, "length", encode.length, here, {2, kLongest});
  encode.overlap = json_integer_or(json, "overlap", encode.overlap, here, {0, encode.length - 1});
  feeding.repeat = json_integer_or(json, "repeat", 0, here, {0, 1024});
  encode.answer = answer_from_name(json_string_or(json, "answer", "first", here));
  return feeding;
}

void write_feeding(Json& config, const Feeding& feeding) {
  config[std::string(kKey)] = {{"length", feeding.encode.length},
                               {"overlap", feeding.encode.overlap},
                               {"answer", answer_name(feeding.encode.answer)},
                               {"repeat", feeding.repeat}};
}

std::vector<std::string> labels_of(const Json& config, std::string_view what) {
  const int64_t count = labels_in(config, what);
  if (count == 0)
    fail("{}: is a language model and no token classifier; lamina tag train makes one of it", what);
  std::vector<std::string> labels;
  for (int64_t i = 0; i < count; ++i)
    labels.push_back(config.at("id2label").at(std::to_string(i)).get<std::string>());
  return labels;
}

Opened with_labels(const Opened& opened, const std::vector<std::string>& labels, const Feeding& feeding) {
  const Architecture& architecture = *opened.architecture;
  const std::string where = opened.checkpoint.path.string();
  if (architecture.classifier.empty())
    fail("{}: {} has no form as a token classifier", where, architecture.name);
  if (opened.blueprint.final_norm.empty())
    fail("{}: the last norm was folded into the LM head, which a token classifier does not have", where);
  if (labels.empty()) fail("a token classifier has at least one class");
  Checkpoint checkpoint = opened.checkpoint;
  Json& config = checkpoint.config;
  config["architectures"] = {architecture.classifier};
  config["id2label"] = Json::object();
  config["label2id"] = Json::object();
  for (size_t i = 0; i < labels.size(); ++i) {
    config["id2label"][std::to_string(i)] = labels[i];
    config["label2id"][labels[i]] = i;
  }
  config.erase("num_labels");
  write_feeding(config, feeding);
  std::erase_if(checkpoint.tensors, [&](const Stored& tensor) {
    return tensor.name.starts_with("lm_head.") ||
           (opened.blueprint.labels > 0 && tensor.name.starts_with(opened.blueprint.head_path() + "."));
  });
  const Blueprint blueprint = architecture.blueprint_of ? architecture.blueprint_of(checkpoint)
                                                        : architecture.blueprint(config, checkpoint.what());
  const int shard = static_cast<int>(checkpoint.shards.size()) - 1;
  for (const std::string& name : {blueprint.head, blueprint.head_path() + ".bias"}) {
    Stored stored{.name = name, .dtype = DType::f32, .zero = true, .shard = shard};
    for (const Axis& axis : blueprint.slot(name)->axes) stored.shape.push_back(axis.size());
    checkpoint.tensors.push_back(std::move(stored));
  }
  std::ranges::sort(checkpoint.tensors, {}, &Stored::name);
  name_for_loaders(config, blueprint);
  return declare(std::move(checkpoint));
}

namespace {

// A tagger runs many passes and nothing else, so that packing pays.
Weights::Options arithmetic(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return {.packed = at::kBFloat16};
  return {.dtype = dtype, .packed = dtype == at::kFloat ? std::optional(dtype) : std::nullopt};
}

}  // namespace

MaskTest mask_test(const Model& model) {
  constexpr int64_t kTokens = 8, kChanged = 5;
  const InferenceMode evaluating;
  const Blueprint& blueprint = model.blueprint();
  const Tensor ids = at::empty({1, kTokens}, at::kLong);
  for (int64_t t = 0; t < kTokens; ++t) ids[0][t] = (7 * t + 3) % blueprint.vocabulary;
  Tensor other = ids.clone();
  other[0][kChanged] = (7 * kChanged + 3 + blueprint.vocabulary / 2) % blueprint.vocabulary;
  const auto device = model.head().weight.device();
  const auto before = streams(model, ids.to(device)), after = streams(model, other.to(device));
  // Two passes of one shape round alike: what does not look right is equal to the bit.
  const auto reacts = [&](Site site) {
    return !at::equal(before.at(site).narrow(1, 0, kChanged), after.at(site).narrow(1, 0, kChanged));
  };
  MaskTest test;
  int expected = -1;
  for (Site site : blueprint.present()) {
    const Part& part = blueprint.part(site);
    if (expected < 0 && !part.causal) expected = part.block;
    if (!reacts(site)) continue;
    if (test.first_block < 0) test.first_block = part.block;
    test.reacting += part.kind == Kind::attention ? 1 : 0;
  }
  test.looks_right = test.first_block >= 0;
  if (test.first_block != expected) {
    const auto said = [](int block) { return block < 0 ? "none" : fmt::format("block {}", block); };
    fail(
        "the mask's self-test failed: a token was changed, and of the blocks {} was the first to see it from "
        "the left where the plan says {}",
        said(test.first_block), said(expected));
  }
  return test;
}

std::vector<size_t> batch_ends(std::span<const int64_t> lengths, int64_t limit, int64_t pass) {
  // The least cost of the first windows, and where their last batch begins.
  std::vector<int64_t> cost(lengths.size() + 1, 0);
  std::vector<size_t> begins(lengths.size() + 1, 0);
  for (size_t end = 1; end <= lengths.size(); ++end) {
    const int64_t longest = lengths[end - 1];
    for (size_t begin = end; begin-- > 0;) {
      const int64_t tokens = longest * static_cast<int64_t>(end - begin), whole = cost[begin] + tokens + pass;
      if (begin + 1 < end && tokens > limit) break;
      if (begin + 1 == end || whole < cost[end]) {
        cost[end] = whole;
        begins[end] = begin;
      }
    }
  }
  std::vector<size_t> ends;
  for (size_t end = lengths.size(); end > 0; end = begins[end]) ends.push_back(end);
  std::ranges::reverse(ends);
  return ends;
}

std::vector<Tagger::Tagged> tag_with(const Model& model, std::span<const Window> windows,
                                     std::span<const label::Sentence> sentences,
                                     const std::vector<std::string>& labels, int64_t repeat, int32_t pad,
                                     int64_t batch_tokens, const Watch& watch) {
  const InferenceMode evaluating;
  std::vector<Tagger::Tagged> result(sentences.size());
  for (size_t s = 0; s < sentences.size(); ++s) {
    result[s].tags.assign(sentences[s].words.size(), "O");
    result[s].confidence.assign(sentences[s].words.size(), 0);
  }
  std::vector<const Window*> order;
  for (const Window& window : windows) order.push_back(&window);
  std::ranges::stable_sort(order, {}, [](const Window* w) { return w->ids.size(); });
  const at::Device device = model.head().weight.device();
  // Measured: how many tokens more a batch could hold in the time that an empty one would take.
  const int64_t pass = device.is_cpu() ? 16 : 1024;
  std::vector<int64_t> lengths;
  for (const Window* window : order) lengths.push_back(std::ssize(window->ids) * (repeat + 1));
  Tap none;
  size_t begin = 0;
  for (const size_t end : batch_ends(lengths, batch_tokens, pass)) {
    if (watch.stop.stop_requested()) throw Stopped{};
    const std::span<const Window* const> batch = std::span(order).subspan(begin, end - begin);
    Padded rows = padded(batch, repeat, pad);
    rows.inputs.ids = rows.inputs.ids.to(device);
    if (rows.inputs.padding) rows.inputs.padding = rows.inputs.padding->to(device);
    std::vector<int64_t> flat;
    const int64_t width = rows.inputs.ids.size(1);
    for (size_t row = 0; row < rows.at.size(); ++row) {
      for (int64_t at : rows.at[row]) flat.push_back(static_cast<int64_t>(row) * width + at);
    }
    Stream stream = model.begin(rows.inputs);
    for (Site site : model.blueprint().present()) model.step(stream, site, none);
    const Tensor read =
        model.read_out(stream, none).flatten(0, 1).index_select(0, at::tensor(flat, at::kLong).to(device));
    const Tensor shares = model.head()(read).to(at::kFloat).softmax(-1).to(at::kCPU);
    const auto [best, which] = shares.max(-1);
    const auto* confidence = best.const_data_ptr<float>();
    const auto* classes = which.const_data_ptr<int64_t>();
    int64_t i = 0;
    for (const Window* window : batch) {
      Tagger::Tagged& tagged = result[static_cast<size_t>(window->sentence)];
      for (const Window::Word& word : window->words) {
        tagged.tags[static_cast<size_t>(word.word)] = labels[static_cast<size_t>(classes[i])];
        tagged.confidence[static_cast<size_t>(word.word)] = confidence[i++];
      }
    }
    begin = end;
    watch.report({"tag", static_cast<double>(end), static_cast<double>(order.size()), ""});
  }
  return result;
}

Tagger::Tagger(Opened opened, Tokenizer tokenizer, const TaggerOptions& options)
    : opened_(std::move(opened)),
      tokenizer_(std::move(tokenizer)),
      options_(options),
      labels_(labels_of(opened_.checkpoint.config, opened_.checkpoint.path.string())),
      feeding_(feeding_of(opened_.checkpoint.config, opened_.checkpoint.what())),
      model_(build_model(opened_, arithmetic(options.dtype))),
      tested_(mask_test(*model_)) {
  check_fits(feeding_, opened_.blueprint);
}

std::vector<Tagger::Tagged> Tagger::tag(std::span<const label::Sentence> sentences,
                                        const Watch& watch) const {
  return tag_with(*model_, windows(sentences, tokenizer_, feeding_.encode), sentences, labels_,
                  feeding_.repeat, pad_of(tokenizer_), options_.batch_tokens, watch);
}

void check_fits(const Feeding& feeding, const Blueprint& blueprint) {
  const int64_t tokens = feeding.encode.length * (feeding.repeat + 1);
  if (tokens > blueprint.context)
    fail(
        "windows of {} tokens, {} times over, are {}, and the model was made for {}; make --length or "
        "--repeat smaller",
        feeding.encode.length, feeding.repeat + 1, tokens, blueprint.context);
}

int32_t pad_of(const Tokenizer& tokenizer) {
  return tokenizer.pad().value_or(tokenizer.eos().value_or(0));
}

}  // namespace lamina::unmask
