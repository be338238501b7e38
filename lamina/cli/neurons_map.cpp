// lamina neurons map: every neuron read through the LM head, into an atlas.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/neurons_shared.h"
#include "lamina/cli/session.h"
#include "lamina/methods/neurons/map.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

// Empty: all that the model has.
std::vector<atlas::Rows> rows_from(const std::string& list, const Blueprint& blueprint) {
  if (list.empty()) {
    const bool gated = std::ranges::any_of(
        blueprint.with_neurons(), [&](Site site) { return !blueprint.part(site).neurons->gate.empty(); });
    return gated ? std::vector{atlas::Rows::up, atlas::Rows::gate, atlas::Rows::down}
                 : std::vector{atlas::Rows::up, atlas::Rows::down};
  }
  std::vector<atlas::Rows> rows;
  for (const std::string& entry : split(list, ',')) {
    const std::string_view name = trim(entry);
    const auto known = {atlas::Rows::up, atlas::Rows::gate, atlas::Rows::down};
    const auto it = std::ranges::find(known, name, atlas::rows_name);
    if (it == known.end()) fail("--rows {}: up, gate and down are possible", in_quotes(name));
    if (std::ranges::find(rows, *it) != rows.end()) fail("--rows {}: names {} twice", list, name);
    rows.push_back(*it);
  }
  return rows;
}

// "0-29" or "3,7-9"; empty: all that have neurons.
std::vector<int64_t> blocks_from(const std::string& list, const Blueprint& blueprint) {
  std::vector<int64_t> there, asked;
  for (Site site : blueprint.with_neurons()) there.push_back(blueprint.part(site).block);
  if (there.empty()) fail("no block of this model has a feed-forward with neurons");
  if (list.empty()) return there;
  const auto number = [&](std::string_view text) {
    int64_t value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 0)
      fail("--blocks {}: write 3, 0-29 or 3,7-9", in_quotes(list));
    return value;
  };
  for (const std::string& entry : split(list, ',')) {
    const std::string_view range = trim(entry);
    const size_t dash = range.find('-');
    const int64_t first = number(range.substr(0, dash)),
                  last = dash == std::string_view::npos ? first : number(range.substr(dash + 1));
    if (last < first) fail("--blocks {}: {} runs backwards", list, range);
    if (last >= blueprint.blocks)
      fail("--blocks {}: the model has blocks 0 to {}", list, blueprint.blocks - 1);
    for (int64_t block = first; block <= last; ++block) {
      if (std::ranges::find(there, block) == there.end())
        fail("--blocks {}: block {} has no feed-forward", list, block);
      asked.push_back(block);
    }
  }
  std::ranges::sort(asked);
  asked.erase(std::unique(asked.begin(), asked.end()), asked.end());
  return asked;
}

}  // namespace

int run_neurons_map(int argc, char** argv) {
  CLI::App app(
      "Read every neuron of a model through its LM head and write what each says into an atlas (SQLite).\n\n"
      "Example: lamina neurons map SmolLM2-135M-Instruct.Q4_1.gguf -o smollm2.sqlite\n"
      "         lamina neurons map TUNED -o tuned.sqlite --head BASE     (for neurons compare)\n"
      "Ctrl-C keeps the blocks that are done; the same command with --resume goes on.",
      "neurons map");
  fs::path model, out, head_model;
  std::string rows, lens = "unembed", norm = "none", blocks;
  std::string products = "float32", device = "cpu";
  int64_t top = 8, random = -1, seed = 0;
  int threads = 1;
  bool resume = false, force = false, quiet = false, json = false;
  app.add_option("MODEL", model, "folder or GGUF file")->required();
  app.add_option("-o,--output", out, "the atlas to write")->required();
  app.add_option("--rows", rows,
                 "what is read of a neuron: up, gate (rows, what it listens for), down (the column, what it "
                 "writes), comma-separated (default: all that the model has)");
  app.add_option("--lens", lens, "unembed (the LM head) or embed (the input embedding)")
      ->capture_default_str()
      ->check(CLI::IsMember({"unembed", "embed"}));
  app.add_option("--norm", norm,
                 "what is done to a vector first: none, rms, final (the last norm), fold (the "
                 "gain in front of the feed-forward)")
      ->capture_default_str()
      ->check(CLI::IsMember({"none", "rms", "final", "fold"}));
  app.add_option("--top", top, "tokens kept at each end")->capture_default_str()->check(CLI::Range(1, 256));
  app.add_option("--blocks", blocks, "0-29 or 3,7-9 (default: all)");
  app.add_option("--head", head_model, "also read with this model's head (same vocabulary and width)");
  app.add_option("--random", random,
                 "random directions decoded as a control (default: a thirtieth of the neurons); 0: none")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  app.add_option("--seed", seed, "of the control")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 32));
  app.add_option("--threads", threads, "threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_option(
         "--products", products,
         "type of the matrix products: float32 or bfloat16 (labels stay those of float32; moments and "
         "log-sum-exp are then rounded)")
      ->capture_default_str()
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  app.add_option("--device", device, "cpu, or cuda where libtorch has it")
      ->capture_default_str()
      ->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_flag("--resume", resume, "go on from where a stopped run of the same command was");
  app.add_flag("--force", force, "replace an existing atlas");
  app.add_flag("--json", json, "one object on stdout");
  app.add_flag("-q,--quiet", quiet, "no progress");
  parse(app, argc, argv);

  Terminal terminal({.quiet = quiet || json});
  const Watch watch = terminal.watch();
  use_threads(thread_count(threads));
  const Opened opened = open(model);
  check_speaks(opened.blueprint, shown(model));
  const Blueprint& blueprint = opened.blueprint;
  const neurons::Source source{opened.checkpoint, blueprint};
  neurons::MapOptions options{.rows = rows_from(rows, blueprint),
                              .norm = neurons::norm_from_name(norm),
                              .top = top,
                              .seed = seed,
                              .blocks = blocks_from(blocks, blueprint)};
  const Neurons& first = *blueprint.part(blueprint.with_neurons().front()).neurons;
  for (Site site : blueprint.with_neurons()) {
    const Part& part = blueprint.part(site);
    if (part.neurons->count != first.count &&
        std::ranges::find(options.blocks, part.block) != options.blocks.end())
      fail("{} has {} neurons where the first block has {}; map blocks of one width at a time", part.path,
           part.neurons->count, first.count);
  }
  if (first.gate.empty() && std::ranges::find(options.rows, atlas::Rows::gate) != options.rows.end())
    fail("--rows {}: the feed-forward of this model has no gate", rows);
  if (random > blueprint.blocks * first.count)
    fail("--random {}: at most as many as the model has neurons, {}", random, blueprint.blocks * first.count);
  options.random = random >= 0 ? random : (std::ssize(options.blocks) * first.count + 29) / 30;

  const std::string hash = opened.checkpoint.hash(watch);
  atlas::Header header{.model = model_name(opened),
                       .model_path = shown(fs::absolute(model)),
                       .model_sha256 = hash,
                       .lens = lens,
                       .norm = norm,
                       .lamina = std::string(version_of()),
                       .width = blueprint.width,
                       .neurons = first.count,
                       .vocabulary = blueprint.vocabulary,
                       .blocks = blueprint.blocks,
                       .top = top,
                       .random = options.random,
                       .seed = seed,
                       .decoded_blocks = options.blocks};
  std::optional<Opened> other;
  if (!head_model.empty()) {
    other = open(head_model);
    if (other->blueprint.width != blueprint.width || other->blueprint.vocabulary != blueprint.vocabulary)
      fail("--head {}: its head is {} x {}, this model's {} x {}", shown(head_model),
           other->blueprint.vocabulary, other->blueprint.width, blueprint.vocabulary, blueprint.width);
    header.head_model = model_name(*other);
    header.head_sha256 = other->checkpoint.hash(watch);
    options.heads.push_back(atlas::Head::other);
  }
  const InferenceMode evaluating;
  if (device == "cuda" && !at::hasCUDA())
    fail("--device cuda: this libtorch has no CUDA, or there is no GPU; leave --device away");
  const neurons::Products how{.type = products == "float32" ? at::kFloat : at::kBFloat16,
                              .device = device == "cpu" ? at::kCPU : at::kCUDA};
  const neurons::Decoder own(neurons::lens_matrix(source, lens), how);
  std::optional<neurons::Decoder> second;
  if (other) second.emplace(neurons::lens_matrix({other->checkpoint, other->blueprint}, lens), how);
  const std::vector<atlas::Token> tokens = token_texts(opened.checkpoint, blueprint.vocabulary);
  atlas::Writer writer(out, header, tokens, {.resume = resume, .replace = force});
  neurons::MapResult result;
  try {
    result = neurons::map(source, own, second ? &*second : nullptr, writer, options, watch);
  } catch (const Stopped&) {
    terminal.clear();
    std::fputs("lamina: the blocks that are done are kept; the same command with --resume goes on\n", stderr);
    throw;
  }
  const double flops = 2.0 * static_cast<double>(result.vectors) * static_cast<double>(blueprint.width) *
                       static_cast<double>(blueprint.vocabulary);
  const Json more = {{"seconds", result.seconds},
                     {"decode_seconds", result.time.all},
                     {"product_seconds", result.time.products},
                     {"vectors", result.vectors},
                     {"threads", thread_count(threads)},
                     {"products", products},
                     {"device", device},
                     {"date", today()},
                     {"command", command_line(argc, argv, "neurons map")}};
  writer.finish(more);
  terminal.clear();
  const uint64_t bytes = fs::file_size(out);
  if (json) {
    Json record = atlas::to_json(header);
    record["more"] = more;
    record["atlas"] = shown(out);
    record["bytes"] = bytes;
    print(record.dump(2) + "\n");
    return Status::ok;
  }
  print(fmt::format(
      "{} vectors of {} block{} read in {} ({:.0f} GFLOP/s; {:.0f} % of the time in matrix products)\n"
      "{}  {}\n\n"
      "  lamina neurons find {} \"dog\"        neurons that read or write a word\n"
      "  lamina neurons show {} {}.0       one neuron\n"
      "  lamina neurons serve {}             a page on this machine\n",
      thousands(result.vectors), options.blocks.size(), options.blocks.size() == 1 ? "" : "s",
      human_seconds(result.seconds), result.time.all > 0 ? flops / result.time.all / 1e9 : 0,
      result.seconds > 0 ? 100 * result.time.products / result.seconds : 0, shown(out), human_bytes(bytes),
      shown(out), shown(out), options.blocks.back(), shown(out)));
  return Status::ok;
}

}  // namespace lamina::cli
