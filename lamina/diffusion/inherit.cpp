#include "lamina/diffusion/inherit.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/diffusion/impl/merge.h"

namespace lamina {

namespace {

using unet::Op;

const std::string kWanted =
    "deep:INTERVAL[:BRANCH][:MODE] or layer:PARTS:INTERVAL[:MODE], where MODE is uniform, front or middle";

int64_t number_in(std::string_view text, std::string_view what) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > 1'000'000)
    fail("--inherit {}: {} is not a whole number; {} is expected", what, in_quotes(text), kWanted);
  return value;
}

std::optional<WholeCalls> mode_named(std::string_view text) {
  if (text == "uniform") return WholeCalls::uniform;
  if (text == "front") return WholeCalls::front;
  if (text == "middle") return WholeCalls::middle;
  return {};
}

// A part is meant by its own name or by a front of it that ends at a dot.
bool named(const Part& part, std::string_view name) {
  const std::string label = part.label();
  return label == name || (label.starts_with(name) && label[name.size()] == '.');
}

std::vector<bool> chosen_parts(const Blueprint& blueprint, const std::vector<std::string>& names) {
  std::vector<bool> chosen(blueprint.parts.size());
  for (const std::string& name : names) {
    bool any = false;
    for (size_t i = 0; i < chosen.size(); ++i)
      if (blueprint.parts[i].present && named(blueprint.parts[i], name)) chosen[i] = any = true;
    if (any) continue;
    std::vector<std::string> labels;
    for (const Part& part : blueprint.parts) labels.push_back(part.label());
    const auto near = nearest(name, labels);
    fail("--inherit: the model has no part {}{}", in_quotes(name),
         near ? fmt::format("; was {} meant?", *near) : "");
  }
  return chosen;
}

// Where a call between leaves the way down and where it comes in again.
struct Jump {
  int run = 0;           // the first parts, which make the skips
  int again = 0;         // the part at which it goes on
  int64_t channels = 0;  // of what is taken over
  size_t skips = 0;
};

Jump jump_of(const std::vector<Op>& program, int64_t branch) {
  Jump jump{.skips = static_cast<size_t>(branch) + 1};
  std::vector<const Op*> readers;  // ResNets that read a skip, the last first
  for (size_t i = program.size(); i-- > 1;)
    if (program[i - 1].kind == Op::Kind::take) readers.push_back(&program[i]);
  if (jump.skips > readers.size())
    fail("--inherit deep: branch {} is deeper than this U-Net, which has branches 0 to {}", branch,
         static_cast<int64_t>(readers.size()) - 1);
  const Op& reader = *readers[jump.skips - 1];
  jump.again = reader.part;
  jump.channels = reader.in - reader.skip;
  size_t kept = 0;
  for (const Op& op : program) {
    if (kept == jump.skips) break;
    if (op.part >= 0) jump.run = op.part + 1;
    if (op.kind == Op::Kind::keep) ++kept;
  }
  return jump;
}

// The parts with self-attention at the largest map that has any.
std::vector<bool> merging_parts(const std::vector<Op>& program, const Blueprint& blueprint) {
  const auto attends = [](const Op& op) {
    return !op.only_cross &&
           (op.kind == Op::Kind::block || (op.kind == Op::Kind::transformer && op.depth > 0));
  };
  int level = -1;
  for (const Op& op : program)
    if (attends(op) && (level < 0 || op.level < level)) level = op.level;
  std::vector<bool> merging(blueprint.parts.size());
  for (const Op& op : program)
    if (attends(op) && op.level == level) merging[static_cast<size_t>(op.part)] = true;
  return merging;
}

std::vector<Op> program_of(const Opened& opened) {
  if (opened.architecture->name != "UNet2DConditionModel")
    fail("{}: features are inherited by a UNet2DConditionModel, not by {}", opened.checkpoint.path.string(),
         opened.architecture->name);
  return unet::program(unet::read_config(opened.checkpoint.config, opened.checkpoint.what()));
}

// What a pass does otherwise than the plain one.
class Inherits : public Tap {
 public:
  Inherits(std::vector<bool> held, std::vector<bool> merging, double share)
      : held_(std::move(held)), merging_(std::move(merging)), merge_(share), added_(held_.size()) {}

  void begin(bool whole) { whole_ = whole; }
  void saw(Site site, const Tensor& before, const Tensor& after) override {
    if (whole_ && held_[index(site)]) added_[index(site)] = after - before;
  }
  const Tensor* stands_in(Site site) const override {
    return !whole_ && held_[index(site)] && added_[index(site)].defined() ? &added_[index(site)] : nullptr;
  }
  const MapAttention* map_attention(Site site) const override {
    return !merging_.empty() && merging_[index(site)] ? &merge_ : nullptr;
  }

 private:
  static size_t index(Site site) { return static_cast<size_t>(site.index); }
  std::vector<bool> held_, merging_;
  Merging merge_;
  std::vector<Tensor> added_;
  bool whole_ = true;
};

class Inheriting : public Denoiser {
 public:
  Inheriting(const Model& model, Inheritance options, std::vector<bool> held, std::vector<bool> merging,
             std::optional<Jump> jump)
      : model_(model),
        options_(std::move(options)),
        tap_(std::move(held), std::move(merging), options_.merged),
        jump_(jump) {}

  Tensor operator()(const Inputs& inputs, int64_t call, int64_t calls) override {
    const bool whole = is_whole(call, calls);
    tap_.begin(whole);
    if (!jump_) return model_.run(inputs, tap_);
    return whole ? through(inputs) : past(inputs);
  }

 private:
  bool is_whole(int64_t call, int64_t calls) {
    if (static_cast<int64_t>(whole_.size()) != calls)
      whole_ = whole_calls(calls, options_.interval, options_.mode);
    return whole_.at(static_cast<size_t>(call));
  }
  void steps(Stream& stream, int from, int to) {
    for (int i = from; i < to; ++i) model_.step(stream, {i}, tap_);
  }
  int parts() const { return static_cast<int>(model_.blueprint().parts.size()); }

  // In front of the part at which a jump comes in, x is [what comes up from below ; skip].
  Tensor through(const Inputs& inputs) {
    Stream stream = model_.begin(inputs);
    steps(stream, 0, jump_->again);
    deep_ = stream.x.slice(1, 0, jump_->channels).clone();
    steps(stream, jump_->again, parts());
    return model_.finish(stream, tap_);
  }
  Tensor past(const Inputs& inputs) {
    Stream stream = model_.begin(inputs);
    steps(stream, 0, jump_->run);
    stream.stack.resize(jump_->skips);
    if (!deep_.defined() || deep_.size(0) != stream.x.size(0))
      fail("features are inherited from call to call of one way down, and the batch changed in between");
    stream.x = at::cat({deep_, stream.stack.back()}, 1);
    stream.stack.pop_back();
    steps(stream, jump_->again, parts());
    return model_.finish(stream, tap_);
  }

  const Model& model_;
  Inheritance options_;
  Inherits tap_;
  std::optional<Jump> jump_;
  std::vector<bool> whole_;
  Tensor deep_;
};

class Switching : public Denoiser {
 public:
  Switching(std::unique_ptr<Denoiser> first, std::unique_ptr<Denoiser> second, double share)
      : first_(std::move(first)), second_(std::move(second)), share_(share) {}
  // Each counts its own calls: what it keeps between them begins with its first.
  Tensor operator()(const Inputs& inputs, int64_t call, int64_t calls) override {
    const auto front = static_cast<int64_t>(std::llround(share_ * static_cast<double>(calls)));
    return call < front ? (*first_)(inputs, call, front) : (*second_)(inputs, call - front, calls - front);
  }

 private:
  std::unique_ptr<Denoiser> first_, second_;
  double share_;
};

double real(int64_t n) {
  return static_cast<double>(n);
}

int64_t halved(int64_t size, int level) {
  for (int i = 0; i < level; ++i) size = (size + 1) / 2;
  return size;
}

// What a step costs beside its part: a sampler's convolution, onto the map behind it, and shortcuts.
double macs_beside_part(const Op& op, const unet::Shape2d& shape) {
  const bool down = op.kind == Op::Kind::down, up = op.kind == Op::Kind::up;
  const bool shortcut = op.kind == Op::Kind::resnet && op.in != op.out;
  if (!down && !up && !shortcut) return 0;
  const int level = op.level + (down ? 1 : up ? -1 : 0);
  return (shortcut ? 1 : 9) * real(op.in * op.out * halved(shape.height, level) * halved(shape.width, level));
}

// What one block saves where `gone` of its tokens are merged away: in queries, keys and values, and in their
// products; less what the comparison costs.
double merged_macs(const Op& op, const unet::Shape2d& shape, double share) {
  const int64_t height = halved(shape.height, op.level), width = halved(shape.width, op.level);
  const double tokens = real(height * width), c = real(op.in),
               left = tokens - real(Merging::count(height, width, share));
  const double stay = real(((height + 1) / 2) * ((width + 1) / 2));
  return 3 * c * c * (tokens - left) + 2 * c * (tokens * tokens - left * left) - c * stay * (tokens - stay);
}

}  // namespace

std::vector<bool> whole_calls(int64_t calls, int64_t interval, WholeCalls mode) {
  constexpr double bend = 1.5;  // of the distances from where the calls are dense
  std::vector<bool> whole(static_cast<size_t>(std::max<int64_t>(calls, 0)));
  const int64_t count = (calls + interval - 1) / interval;
  const double last = real(calls - 1), centre = mode == WholeCalls::middle ? last / 2 : 0;
  const double from = -std::pow(centre, 1 / bend), to = std::pow(last - centre, 1 / bend);
  for (int64_t i = 0, least = 0; i < count; ++i) {
    const double share = count > 1 ? real(i) / real(count - 1) : 0, place = from + share * (to - from);
    const double bent = centre + std::copysign(std::pow(std::abs(place), bend), place);
    const int64_t wanted = mode == WholeCalls::uniform || i == 0 ? i * interval : std::llround(bent);
    const int64_t at = std::clamp(wanted, least, calls - count + i);  // none twice, and room for the rest
    whole[static_cast<size_t>(at)] = true;
    least = at + 1;
  }
  return whole;
}

Inheritance inheritance_from_text(std::string_view text) {
  std::vector<std::string> words = split(text, ':');
  Inheritance out;
  if (const auto mode = mode_named(words.back()); mode && words.size() > 2)
    out.mode = *mode, words.pop_back();
  const bool deep = words[0] == "deep" && (words.size() == 2 || words.size() == 3);
  const bool parts = (words[0] == "block" || words[0] == "layer" || words[0] == "unit") && words.size() == 3;
  if (!deep && !parts) fail("--inherit {}: {} is expected", in_quotes(text), kWanted);
  out.kind = deep ? Inheritance::Kind::deep : Inheritance::Kind::parts;
  out.interval = number_in(deep ? words[1] : words[2], text);
  if (out.interval < 1) fail("--inherit {}: the interval is at least 1", in_quotes(text));
  if (deep && words.size() == 3) out.branch = number_in(words[2], text);
  if (parts) out.parts = split(words[1], ',');
  return out;
}

std::unique_ptr<Denoiser> inheriting(const Opened& opened, const Model& model, const Inheritance& options) {
  const std::vector<Op> program = program_of(opened);
  if (!(options.merged >= 0 && options.merged <= 0.75))
    fail("a share of {} of the tokens cannot be merged; 0 to 0.75 can", options.merged);
  std::optional<Jump> jump;
  if (options.kind == Inheritance::Kind::deep) jump = jump_of(program, options.branch);
  std::vector<bool> held = chosen_parts(opened.blueprint, options.parts), merging;
  if (options.merged > 0) merging = merging_parts(program, opened.blueprint);
  return std::make_unique<Inheriting>(model, options, std::move(held), std::move(merging), jump);
}

std::unique_ptr<Denoiser> switching(std::unique_ptr<Denoiser> first, std::unique_ptr<Denoiser> second,
                                    double share) {
  if (!(share >= 0 && share <= 1)) fail("networks are switched at 0 to 1 of the way, not at {}", share);
  return std::make_unique<Switching>(std::move(first), std::move(second), share);
}

Spent multiply_adds(const Opened& opened, const Inheritance& options, int64_t calls,
                    const unet::Shape2d& shape) {
  const std::vector<Op> program = program_of(opened);
  const unet::Config config = unet::read_config(opened.checkpoint.config, opened.checkpoint.what());
  const std::vector<unet::Macs> parts = unet::macs_by_part(config, opened.blueprint, shape);
  const std::vector<bool> held = chosen_parts(opened.blueprint, options.parts);
  const std::vector<bool> merging = merging_parts(program, opened.blueprint);
  const double plain = unet::macs(config, opened.blueprint, shape).total();
  double whole = plain, between = plain;
  std::optional<Jump> jump;
  if (options.kind == Inheritance::Kind::deep) jump = jump_of(program, options.branch);
  int last = -1;
  for (const Op& op : program) {
    if (op.part >= 0) last = op.part;
    const bool away = jump && last >= jump->run && last < jump->again;
    const bool part = op.part >= 0 && opened.blueprint.parts[static_cast<size_t>(op.part)].present;
    const bool stands = part && held[static_cast<size_t>(op.part)];
    const double own = part ? parts[static_cast<size_t>(op.part)].total() : 0;
    const bool merges = part && options.merged > 0 && merging[static_cast<size_t>(op.part)];
    const double merged = merges ? merged_macs(op, shape, options.merged) : 0;
    whole -= merged;
    between -= (away ? macs_beside_part(op, shape) : 0) + (away || stands ? own : merged);
  }
  Spent spent{.plain = plain * real(calls)};
  for (const bool all :
       whole_calls(calls, options.kind == Inheritance::Kind::none ? 1 : options.interval, options.mode))
    spent.own += all ? whole : between;
  return spent;
}

}  // namespace lamina
