#include "lamina/family/unet.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/variants.h"
#include "lamina/family/unet_layout.h"
#include "lamina/plan/plan.h"

namespace lamina::unet {

namespace {

constexpr int64_t kMostStages = 16, kMostLayers = 64, kMostDepth = 256, kMostParts = 4096;
constexpr IntegerRange kWidth{1, 1 << 20};

// Keys that change what a U-Net computes and that only their default is known of here.
void refuse_unknown(const Json& json, std::string_view what) {
  const Json usual = {{"act_fn", "silu"},
                      {"class_embed_type", nullptr},
                      {"class_embeddings_concat", false},
                      {"cross_attention_norm", nullptr},
                      {"dual_cross_attention", false},
                      {"encoder_hid_dim", nullptr},
                      {"encoder_hid_dim_type", nullptr},
                      {"mid_block_only_cross_attention", nullptr},
                      {"mid_block_scale_factor", 1},
                      {"num_attention_heads", nullptr},
                      {"num_class_embeds", nullptr},
                      {"resnet_out_scale_factor", 1.0},
                      {"resnet_skip_time_act", false},
                      {"resnet_time_scale_shift", "default"},
                      {"time_cond_proj_dim", nullptr},
                      {"time_embedding_act_fn", nullptr},
                      {"time_embedding_type", "positional"},
                      {"timestep_post_act", nullptr},
                      {"attention_type", "default"}};
  for (const auto& [key, value] : usual.items()) {
    const auto it = json.find(key);
    if (it == json.end() || *it == value || it->is_null()) continue;
    if (key == "mid_block_only_cross_attention" && *it == false) continue;
    if (key == "act_fn" && (*it == "swish")) continue;
    if (value.is_number() && it->is_number() && it->get<double>() == value.get<double>()) continue;
    fail("{}: \"{}\" is {}, of which only {} is known here", what, key, in_quotes(it->dump(), 40),
         value.dump());
  }
}

// One value for every stage, or a list of one each.
template <class T, class Read>
std::vector<T> per_stage(const Json& json, std::string_view key, const Json& otherwise, size_t stages,
                         std::string_view what, const Read& read) {
  const Json& value = json_has(json, key) ? json.at(std::string(key)) : otherwise;
  std::vector<T> list;
  if (!value.is_array()) {
    list.assign(stages, read(value));
    return list;
  }
  if (value.size() != stages)
    fail("{}: \"{}\" has {} entries where the U-Net has {} stages", what, key, value.size(), stages);
  for (const Json& entry : value) list.push_back(read(entry));
  return list;
}

std::vector<std::string> names_in(const Json& json, std::string_view key, const Json& otherwise,
                                  std::string_view what) {
  const Json& value = json_has(json, key) ? json.at(std::string(key)) : otherwise;
  if (!value.is_array() || value.empty() || value.size() > kMostStages)
    fail("{}: \"{}\" must be a list of 1 to {} names", what, key, kMostStages);
  std::vector<std::string> names;
  for (const Json& entry : value) {
    if (!entry.is_string()) fail("{}: \"{}\" holds {} where a name was expected", what, key, entry.dump());
    names.push_back(entry.get<std::string>());
  }
  return names;
}

std::vector<bool> attends(const std::vector<std::string>& names, std::string_view with,
                          std::string_view without, std::string_view what) {
  std::vector<bool> list;
  for (const std::string& name : names) {
    const std::string stock = stock_name(name);  // ours where parts are gone
    if (stock != with && stock != without)
      fail("{}: the block type {} is not known here; {} and {} are", what, in_quotes(name), with, without);
    list.push_back(stock == with);
  }
  return list;
}

// A whole number out of a config's lists.
struct Whole {
  std::string_view key, what;
  IntegerRange range;
  int64_t operator()(const Json& value) const {
    return json_integer({{std::string(key), value}}, key, what, range);
  }
};

// "transformer_layers_per_block": a number, one a stage, or a list of one a transformer for a stage.
std::vector<int64_t> depths_of(const Json& entry, int64_t transformers, std::string_view key,
                               std::string_view what) {
  const Whole whole{key, what, {0, kMostDepth}};
  if (!entry.is_array()) return std::vector<int64_t>(static_cast<size_t>(transformers), whole(entry));
  if (static_cast<int64_t>(entry.size()) != transformers)
    fail("{}: \"{}\" has a list of {} for a stage of {} transformers", what, key, entry.size(), transformers);
  std::vector<int64_t> list;
  for (const Json& one : entry) list.push_back(whole(one));
  return list;
}

void read_depths(const Json& json, std::string_view what, Config& c) {
  constexpr std::string_view kDepth = "transformer_layers_per_block",
                             kReverse = "reverse_transformer_layers_per_block";
  const size_t stages = c.channels.size();
  const Json one = 1;
  const auto same = [](const Json& entry) { return entry; };
  const std::vector<Json> down = per_stage<Json>(json, kDepth, one, stages, what, same);
  std::vector<Json> up(down.rbegin(), down.rend());
  if (json_has(json, kReverse)) {
    up = per_stage<Json>(json, kReverse, one, stages, what, same);
  } else {
    for (const Json& entry : down) {
      if (entry.is_array()) fail("{}: \"{}\" holds lists, which ask for \"{}\"", what, kDepth, kReverse);
    }
  }
  for (size_t i = 0; i < stages; ++i) {
    c.down_depths.push_back(depths_of(down[i], c.layers[i], kDepth, what));
    c.up_depths.push_back(depths_of(up[i], c.layers[stages - 1 - i] + 1, kReverse, what));
  }
  const Json& last = down.back();
  c.mid_depth = Whole{kDepth, what, {0, kMostDepth}}(last.is_array() && !last.empty() ? last[0] : last);
}

void check_count(const Config& c, std::string_view what) {
  int64_t parts = 3 + c.mid_depth;
  for (size_t i = 0; i < c.channels.size(); ++i) {
    parts += 2 * c.layers[i] + 1;
    for (const auto* depths : {&c.down_depths[i], &c.up_depths[i]}) {
      for (int64_t depth : *depths) parts += std::max<int64_t>(depth, 1);
    }
  }
  if (parts > kMostParts)
    fail("{}: asks for {} ResNets and transformer blocks; {} are possible", what, parts, kMostParts);
}

void check_possible(const Config& c, std::string_view what) {
  check_count(c, what);
  for (size_t i = 0; i < c.channels.size(); ++i) {
    if (c.channels[i] % c.groups != 0)
      fail("{}: {} channels cannot be normed in {} groups", what, c.channels[i], c.groups);
    if (c.channels[i] % c.heads[i] != 0)
      fail("{}: {} heads do not divide {} channels", what, c.heads[i], c.channels[i]);
    if (i > 0 && c.layers[i] == 0 && c.channels[i] != c.channels[i - 1])
      fail("{}: down stage {} has no layers, but its channels change from {} to {}", what, i,
           c.channels[i - 1], c.channels[i]);
  }
  for (const Op& op : program(c)) {
    if (op.kind == Op::Kind::resnet && op.in % c.groups != 0)
      fail("{}: {} reads {} channels, which cannot be normed in {} groups", what, op.path, op.in, c.groups);
  }
}

}  // namespace

Config read_config(const Json& json, std::string_view what) {
  refuse_unknown(json, what);
  const Json usual_down = {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                           "DownBlock2D"},
             usual_up = {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"};
  Config c;
  c.in_channels = json_integer_or(json, "in_channels", 4, what, kWidth);
  c.out_channels = json_integer_or(json, "out_channels", 4, what, kWidth);
  if (json_has(json, "sample_size") && json.at("sample_size").is_number())
    c.sample_size = json_integer(json, "sample_size", what, {1, 1 << 20});
  c.down_attends = attends(names_in(json, "down_block_types", usual_down, what), "CrossAttnDownBlock2D",
                           "DownBlock2D", what);
  c.up_attends =
      attends(names_in(json, "up_block_types", usual_up, what), "CrossAttnUpBlock2D", "UpBlock2D", what);
  const size_t stages = c.down_attends.size();
  if (c.up_attends.size() != stages)
    fail("{}: {} down stages and {} up stages; a U-Net has as many of each", what, stages,
         c.up_attends.size());
  const Json usual_channels = {320, 640, 1280, 1280};
  c.channels = per_stage<int64_t>(json, "block_out_channels", usual_channels, stages, what,
                                  Whole{"block_out_channels", what, kWidth});
  c.layers = per_stage<int64_t>(json, "layers_per_block", 2, stages, what,
                                Whole{"layers_per_block", what, {0, kMostLayers}});
  c.heads = per_stage<int64_t>(json, "attention_head_dim", 8, stages, what,
                               Whole{"attention_head_dim", what, {1, 1 << 16}});
  c.context = per_stage<int64_t>(json, "cross_attention_dim", 1280, stages, what,
                                 Whole{"cross_attention_dim", what, kWidth});
  c.only_cross = per_stage<bool>(json, "only_cross_attention", false, stages, what, [&](const Json& value) {
    return json_bool_or({{"only_cross_attention", value}}, "only_cross_attention", false, what);
  });
  c.groups = json_integer_or(json, "norm_num_groups", 32, what, kWidth);
  c.norm_epsilon = json_number_or(json, "norm_eps", 1e-5, what);
  if (!(c.norm_epsilon > 0) || !std::isfinite(c.norm_epsilon))
    fail("{}: \"norm_eps\" is {} where a positive number was expected", what, c.norm_epsilon);
  c.linear_projection = json_bool_or(json, "use_linear_projection", false, what);
  c.time_width = json_integer_or(json, "time_embedding_dim", 4 * c.channels[0], what, kWidth);
  c.cosine_first = json_bool_or(json, "flip_sin_to_cos", true, what);
  c.frequency_shift = json_number_or(json, "freq_shift", 0, what);
  c.downsample_padding = json_integer_or(json, "downsample_padding", 1, what, {0, 1});
  c.conv_in_kernel = json_integer_or(json, "conv_in_kernel", 3, what, {1, 31});
  c.conv_out_kernel = json_integer_or(json, "conv_out_kernel", 3, what, {1, 31});
  c.centre_input = json_bool_or(json, "center_input_sample", false, what);
  if (const std::string added = json_string_or(json, "addition_embed_type", "", what); !added.empty()) {
    if (added != "text_time")
      fail("{}: the addition_embed_type {} is not known here; text_time is", what, in_quotes(added));
    c.added_time_width = json_integer(json, "addition_time_embed_dim", what, kWidth);
    c.added_width = json_integer(json, "projection_class_embeddings_input_dim", what, kWidth);
    if (c.added_width <= 6 * c.added_time_width)
      fail("{}: projection_class_embeddings_input_dim {} leaves nothing for the text beside six times {}",
           what, c.added_width, c.added_time_width);
  }
  // null is no middle block; a config that does not say means the usual one.
  const bool says = json.contains("mid_block_type");
  const std::string mid = says && json.at("mid_block_type").is_null()
                              ? ""
                              : json_string_or(json, "mid_block_type", "UNetMidBlock2DCrossAttn", what);
  if (mid.empty())
    c.mid = Mid::none;
  else if (mid == "UNetMidBlock2D")
    c.mid = Mid::resnet;
  else if (mid != "UNetMidBlock2DCrossAttn")
    fail("{}: the mid_block_type {} is not known here; UNetMidBlock2DCrossAttn, UNetMidBlock2D and null are",
         what, in_quotes(mid));
  read_depths(json, what, c);
  check_possible(c, what);
  return c;
}

namespace {

// Writes the program down, and counts parts and wrappers while it does.
class Writer {
 public:
  explicit Writer(const Config& config) : c_(config) {}

  std::vector<Op> whole() {
    const int stages = static_cast<int>(c_.stages());
    width_ = c_.channels[0];
    keep();
    for (int i = 0; i < stages; ++i) down_stage(i);
    if (c_.mid != Mid::none) mid_stage();
    for (int i = 0; i < stages; ++i) up_stage(i);
    return std::move(ops_);
  }

 private:
  Op& add(Op::Kind kind, std::string path) {
    ops_.push_back({.kind = kind, .path = std::move(path), .stage = stage_, .level = level_, .in = width_});
    ops_.back().out = width_;
    return ops_.back();
  }
  void keep() {
    add(Op::Kind::keep, "");
    kept_.push_back(width_);
  }
  void resnet(const std::string& path, int64_t out, int64_t skip) {
    Op& op = add(Op::Kind::resnet, path);
    op.out = out;
    op.skip = skip;
    op.part = part_++;
    width_ = out;
  }
  void transformer(const std::string& path, size_t stage, int64_t depth, bool mid) {
    const auto attention = [&](Op& op) {
      op.heads = c_.heads[stage];
      op.context = c_.context[stage];
      op.only_cross = !mid && c_.only_cross[stage];
      op.depth = depth;
    };
    if (depth <= 1) {
      Op& op = add(Op::Kind::transformer, path);
      attention(op);
      op.part = part_++;
      return;
    }
    const int wrapper = wrapper_++;
    const auto inside = [&](Op::Kind kind, const std::string& where) -> Op& {
      Op& op = add(kind, where);
      attention(op);
      op.wrapper = wrapper;
      return op;
    };
    inside(Op::Kind::enter, path);
    for (int64_t k = 0; k < depth; ++k)
      inside(Op::Kind::block, fmt::format("{}.transformer_blocks.{}", path, k)).part = part_++;
    inside(Op::Kind::leave, path);
  }
  void end_stage(const std::string& path) {
    add(Op::Kind::stage_end, path);
    ++stage_;
  }

  void down_stage(int i) {
    const auto at = static_cast<size_t>(i);
    const std::string path = fmt::format("down_blocks.{}", i);
    for (int64_t j = 0; j < c_.layers[at]; ++j) {
      resnet(fmt::format("{}.resnets.{}", path, j), c_.channels[at], 0);
      if (c_.down_attends[at])
        transformer(fmt::format("{}.attentions.{}", path, j), at, c_.down_depths[at][static_cast<size_t>(j)],
                    false);
      keep();
    }
    if (i + 1 < c_.stages()) {
      add(Op::Kind::down, path + ".downsamplers.0.conv");
      ++level_;
      keep();
    }
    end_stage(path);
  }
  void mid_stage() {
    resnet("mid_block.resnets.0", width_, 0);
    if (c_.mid == Mid::attention) {
      transformer("mid_block.attentions.0", c_.channels.size() - 1, c_.mid_depth, true);
      resnet("mid_block.resnets.1", width_, 0);
    }
    end_stage("mid_block");
  }
  void up_stage(int i) {
    const size_t at = c_.channels.size() - 1 - static_cast<size_t>(i);
    const std::string path = fmt::format("up_blocks.{}", i);
    for (int64_t j = 0; j <= c_.layers[at]; ++j) {
      add(Op::Kind::take, "");
      const int64_t skip = kept_.back();
      kept_.pop_back();
      width_ += skip;
      resnet(fmt::format("{}.resnets.{}", path, j), c_.channels[at], skip);
      if (c_.up_attends[static_cast<size_t>(i)])
        transformer(fmt::format("{}.attentions.{}", path, j), at,
                    c_.up_depths[static_cast<size_t>(i)][static_cast<size_t>(j)], false);
    }
    if (i + 1 < c_.stages()) {
      add(Op::Kind::up, path + ".upsamplers.0.conv");
      --level_;
    }
    end_stage(path);
  }

  const Config& c_;
  std::vector<Op> ops_;
  std::vector<int64_t> kept_;
  int64_t width_ = 0;
  int part_ = 0, wrapper_ = 0, stage_ = 0, level_ = 0;
};

// "down_blocks.1.attentions.0.transformer_blocks.3" -> "d1.a0.b3".
std::string short_name(std::string_view path) {
  std::string name;
  for (const auto& [from, to] : std::initializer_list<std::pair<std::string_view, std::string_view>>{
           {"down_blocks.", "d"}, {"up_blocks.", "u"}, {"mid_block", "mid"}}) {
    if (!path.starts_with(from)) continue;
    name = to;
    path.remove_prefix(from.size());
  }
  for (size_t dot = path.find('.'); !path.empty(); dot = path.find('.')) {
    const std::string_view word = path.substr(0, dot);
    name += word == "resnets"              ? ".r"
            : word == "attentions"         ? ".a"
            : word == "transformer_blocks" ? ".b"
                                           : std::string(word);
    path = dot == std::string_view::npos ? "" : path.substr(dot + 1);
  }
  return name;
}

std::set<std::string> removed_in(const Json& json, std::string_view what) {
  std::set<std::string> removed;
  if (!json_has(json, kRemoved)) return removed;
  const Json& list = json.at(std::string(kRemoved));
  if (!list.is_array()) fail("{}: \"{}\" must be a list of parts", what, kRemoved);
  for (const Json& entry : list) {
    if (!entry.is_string())
      fail("{}: \"{}\" holds {} where a part was expected", what, kRemoved, entry.dump());
    if (!removed.insert(entry.get<std::string>()).second)
      fail("{}: \"{}\" names {} twice", what, kRemoved, entry.get<std::string>());
  }
  return removed;
}

// Windows and experts, put to the parts that have them.
void read_variants(Blueprint& b, const Json& json, std::string_view what) {
  const auto present = [&](std::string_view path, std::string_view key) -> Part& {
    const auto it = std::ranges::find(b.parts, path, &Part::path);
    if (it == b.parts.end() || !it->present)
      fail("{}: {} names {}, which is no part of this model", what, key, in_quotes(path));
    return *it;
  };
  for (const auto& [path, windows] : read_regionals(json, what)) {
    Part& part = present(path, kRegionalKey);
    if (part.map_heads == 0)
      fail("{}: {} names {}, which has no self-attention over a map", what, kRegionalKey, in_quotes(path));
    part.windows = windows;
  }
  for (auto& [conv, experts] : read_mixtures(json, what)) {
    const size_t dot = conv.rfind('.');
    const std::string_view name = dot == std::string::npos ? "" : std::string_view(conv).substr(dot + 1);
    Part& part = present(conv.substr(0, dot), kExpertsKey);
    if (part.kind != Kind::resnet || (name != "conv1" && name != "conv2"))
      fail("{}: {} names {}, where conv1 or conv2 of a ResNet was expected", what, kExpertsKey,
           in_quotes(conv));
    part.experts.push_back(experts);
  }
}

// Fills in the slots. An axis without a name is shared with no other slot that could be cut with it.
class Declaration {
 public:
  Declaration(const Config& config, Blueprint& blueprint) : c_(config), b_(blueprint) {}

  // Where the following slots belong.
  int part = -1, wrapper = -1;
  bool here = true;  // false: gone, nothing is declared

  void conv(const std::string& path, int64_t out, int64_t in, int64_t kernel, bool silences = false) {
    add(path, {outer(out), outer(in), outer(kernel), outer(kernel)}, true, silences);
  }
  void linear(const std::string& path, Axis out, Axis in, bool bias, bool silences = false) {
    add(path, {std::move(out), std::move(in)}, bias, silences);
  }
  void norm(const std::string& path, int64_t width) { add(path, {outer(width)}, true, false); }
  static Axis outer(int64_t size) { return {"", size}; }

  void resnet(const Op& op) {
    const std::vector<Experts>& mixed = b_.parts[static_cast<size_t>(op.part)].experts;
    // Channels within it may be permuted by whole groups of the norm; not where a router reads their means
    // beside the time.
    const bool apart = std::ranges::none_of(mixed, [](const Experts& experts) {
      return experts.conv.ends_with(".conv2") && experts.reads == Experts::Reads::both;
    });
    const Axis hidden{apart ? op.path + ".hidden" : "", c_.groups, op.out / c_.groups};
    norm(op.path + ".norm1", op.in);
    add(op.path + ".conv1", {hidden, outer(op.in), outer(3), outer(3)}, true, false);
    linear(op.path + ".time_emb_proj", hidden, outer(c_.time_width), true);
    add(op.path + ".norm2", {hidden}, true, false);
    add(op.path + ".conv2", {outer(op.out), hidden, outer(3), outer(3)}, true, true);
    for (const Experts& experts : mixed) {
      const bool first = experts.conv.ends_with(".conv1");
      const Axis in = first ? outer(op.in) : hidden;
      for (size_t e = 0; e < experts.donors.size(); ++e)
        add(fmt::format("{}.experts.{}", experts.conv, e),
            {first ? hidden : outer(op.out), in, outer(3), outer(3)}, true, !first);
      const Axis read = experts.reads == Experts::Reads::time    ? outer(c_.time_width)
                        : experts.reads == Experts::Reads::input ? in
                                                                 : outer(in.size() + c_.time_width);
      linear(experts.conv + ".router", outer(experts.gates()), read, true);
    }
    if (op.in == op.out) return;
    const int owner = std::exchange(part, -1);  // the shortcut stays
    const bool was_here = std::exchange(here, true);
    conv(op.path + ".conv_shortcut", op.out, op.in, 1);
    part = owner, here = was_here;
  }
  void projections(const Op& op, bool into, bool out_of) {
    if (into) {
      norm(op.path + ".norm", op.in);
      projection(op.path + ".proj_in", op.in, false);
    }
    if (out_of) projection(op.path + ".proj_out", op.in, true);
  }
  void block(const std::string& path, const Op& op, bool silences) {
    const Axis width = outer(op.in), text = outer(op.context);
    for (const auto& [name, keys] :
         {std::pair{".attn1", op.only_cross ? text : width}, std::pair{".attn2", text}}) {
      const Axis heads{path + name + ".heads", op.heads, op.in / op.heads};
      linear(path + name + ".to_q", heads, width, false);
      linear(path + name + ".to_k", heads, keys, false);
      linear(path + name + ".to_v", heads, keys, false);
      linear(path + name + ".to_out.0", width, heads, true, silences);
    }
    const std::optional<Windows>& windows = b_.parts[static_cast<size_t>(op.part)].windows;
    if (here && windows && windows->mix == Windows::Mix::gate)
      b_.slots.push_back(
          {.name = path + ".attn1.regional_gate", .axes = {{path + ".attn1.heads", op.heads}}, .part = part});
    // Values, then gates (GEGLU).
    const Axis both{path + ".neurons", 4 * op.in, 1, 2}, neurons{path + ".neurons", 4 * op.in};
    linear(path + ".ff.net.0.proj", both, width, true);
    linear(path + ".ff.net.2", width, neurons, true, silences);
    for (const char* name : {".norm1", ".norm2", ".norm3"}) norm(path + name, op.in);
  }

 private:
  void add(const std::string& path, std::vector<Axis> axes, bool bias, bool silences) {
    if (!here) return;
    const Axis rows = axes.front();
    b_.slots.push_back({.name = path + ".weight",
                        .axes = std::move(axes),
                        .part = part,
                        .wrapper = wrapper,
                        .silences = silences});
    if (bias)
      b_.slots.push_back(
          {.name = path + ".bias", .axes = {rows}, .part = part, .wrapper = wrapper, .silences = silences});
  }
  void projection(const std::string& path, int64_t width, bool silences) {
    if (c_.linear_projection)
      linear(path, outer(width), outer(width), true, silences);
    else
      conv(path, width, width, 1, silences);
  }
  const Config& c_;
  Blueprint& b_;
};

}  // namespace

std::vector<Op> program(const Config& config) {
  return Writer(config).whole();
}

bool present(const Op& op, const Blueprint& blueprint) {
  if (op.part >= 0) return blueprint.parts[static_cast<size_t>(op.part)].present;
  if (op.wrapper < 0) return true;
  const std::vector<int>& inside = blueprint.wrappers[static_cast<size_t>(op.wrapper)].parts;
  return std::ranges::any_of(inside,
                             [&](int part) { return blueprint.parts[static_cast<size_t>(part)].present; });
}

Blueprint blueprint(const Json& json, std::string_view what) {
  const Config c = read_config(json, what);
  std::set<std::string> removed = removed_in(json, what);
  Blueprint b;
  b.family = "unet";
  b.removed_key = kRemoved;
  b.looked_up.first = "down_block_types";
  for (bool attends : c.down_attends)
    b.looked_up.second.emplace_back(attends ? "CrossAttnDownBlock2D" : "DownBlock2D");
  b.width = c.channels[0];
  const std::vector<Op> ops = program(c);
  for (const Op& op : ops) {
    if (op.kind == Op::Kind::stage_end) b.stages.push_back(op.path);
    if (op.kind == Op::Kind::enter) b.wrappers.push_back({.path = op.path, .parts = {}});
    if (op.part < 0) continue;
    b.parts.push_back({.path = op.path,
                       .kind = op.kind == Op::Kind::resnet ? Kind::resnet : Kind::transformer,
                       .block = op.stage,
                       .present = removed.erase(op.path) == 0,
                       .causal = false,
                       .short_name = short_name(op.path),
                       .map_heads = op.depth > 0 && !op.only_cross ? op.heads : 0,
                       .skip = op.skip});
    if (op.wrapper >= 0) b.wrappers[static_cast<size_t>(op.wrapper)].parts.push_back(op.part);
  }
  if (!removed.empty())
    fail("{}: \"{}\" names {}, which is no part of this model", what, kRemoved, in_quotes(*removed.begin()));
  b.blocks = static_cast<int>(b.stages.size());
  read_variants(b, json, what);

  Declaration declare(c, b);
  declare.conv("conv_in", c.channels[0], c.in_channels, c.conv_in_kernel);
  const auto embedding = [&](const std::string& path, int64_t width) {
    const Axis hidden{path + ".hidden", c.time_width};
    declare.linear(path + ".linear_1", hidden, Declaration::outer(width), true);
    declare.linear(path + ".linear_2", Declaration::outer(c.time_width), hidden, true);
  };
  embedding("time_embedding", c.channels[0]);
  if (c.added_time_width > 0) embedding("add_embedding", c.added_width);
  for (const Op& op : ops) {
    declare.part = op.part;
    declare.wrapper = op.part < 0 ? op.wrapper : -1;
    declare.here = present(op, b);
    switch (op.kind) {
      case Op::Kind::resnet:
        declare.resnet(op);
        break;
      case Op::Kind::transformer:
        declare.projections(op, true, true);
        if (op.depth == 1) declare.block(op.path + ".transformer_blocks.0", op, false);
        break;
      case Op::Kind::enter:
        declare.projections(op, true, false);
        break;
      case Op::Kind::block:
        declare.block(op.path, op, true);
        break;
      case Op::Kind::leave:
        declare.projections(op, false, true);
        break;
      case Op::Kind::down:
      case Op::Kind::up:
        declare.conv(op.path, op.out, op.in, 3);
        break;
      case Op::Kind::keep:
      case Op::Kind::take:
      case Op::Kind::stage_end:
        break;
    }
  }
  declare.part = declare.wrapper = -1, declare.here = true;
  declare.norm("conv_norm_out", c.channels[0]);
  declare.conv("conv_out", c.out_channels, c.channels[0], c.conv_out_kernel);
  return b;
}

namespace {

// Every kind of stage, a transformer of two blocks, one without any, a stage without attention on one side.
Json tiny() {
  return {{"_class_name", "UNet2DConditionModel"},
          {"in_channels", 3},
          {"out_channels", 3},
          {"sample_size", 8},
          {"down_block_types", {"CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"}},
          {"up_block_types", {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}},
          {"block_out_channels", {8, 8, 16}},
          {"layers_per_block", {2, 1, 1}},
          {"transformer_layers_per_block", {Json{1, 2}, 1, 2}},
          {"reverse_transformer_layers_per_block", {Json{2, 1}, Json{0, 3}, 1}},
          {"attention_head_dim", {2, 2, 4}},
          {"cross_attention_dim", 12},
          {"use_linear_projection", true},
          {"norm_num_groups", 4},
          {"addition_embed_type", "text_time"},
          {"addition_time_embed_dim", 4},
          {"projection_class_embeddings_input_dim", 34}};
}

}  // namespace

Architecture declaration() {
  return {.name = "UNet2DConditionModel",
          .model_type = "unet",
          .blueprint = blueprint,
          .tiny = tiny,
          .dialects = {},
          .compact = compact};
}

}  // namespace lamina::unet
