// lamina neurons erase: TARS, experimental.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/chat.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/neurons_shared.h"
#include "lamina/cli/session.h"
#include "lamina/methods/neurons/clamp.h"
#include "lamina/methods/neurons/erase.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

// KL(before || after) of the next token, a value a position of held-out windows.
std::vector<double> divergences(const Model& before, const Model& after, const std::vector<int32_t>& ids,
                                int64_t length, const Watch& watch) {
  const InferenceMode evaluating;
  std::vector<double> values;
  for (size_t at = 0; at < ids.size(); at += static_cast<size_t>(length)) {
    if (watch.stop.stop_requested()) throw Stopped{};
    watch.report({"held-out KL", static_cast<double>(at), static_cast<double>(ids.size()), ""});
    const size_t end = std::min(ids.size(), at + static_cast<size_t>(length));
    const Tensor window = at::tensor(std::vector<int64_t>(ids.begin() + static_cast<ptrdiff_t>(at),
                                                          ids.begin() + static_cast<ptrdiff_t>(end)),
                                     at::kLong)
                              .unsqueeze(0);
    const Tensor p = at::log_softmax(before.run({.ids = window}).squeeze(0).to(at::kFloat), 1);
    const Tensor q = at::log_softmax(after.run({.ids = window}).squeeze(0).to(at::kFloat), 1);
    const Tensor kl = neurons::divergence_by_position(p, q);
    values.insert(values.end(), kl.const_data_ptr<double>(), kl.const_data_ptr<double>() + kl.numel());
  }
  return values;
}

}  // namespace

int run_neurons_erase(int argc, char** argv) {
  CLI::App app(
      "Experimental. Make a model forget a word, after TARS (arXiv 2412.10257): find the direction that "
      "makes the\n"
      "head say it, and turn round the gate and up rows that point along it. The paper's prompt, noise and\n"
      "threshold are not public; they are options. Every edited row is logged; neurons undo takes it "
      "back.\n\n"
      "Example: lamina neurons erase MODEL Saturn -o forgot --edits 4",
      "neurons erase");
  fs::path model, out;
  std::string concept_text, prompt;
  neurons::EraseOptions options;
  int64_t heldout_tokens = 1024;
  int threads = 1;
  bool force = false, json = false, quiet = false;
  app.add_option("MODEL", model, "folder or GGUF file")->required();
  app.add_option("CONCEPT", concept_text, "a word that a single token spells")->required();
  app.add_option("-o,--output", out, "folder to write")->required();
  app.add_option("-p,--prompt", prompt, "text that leads to the concept (default: one made of it)");
  app.add_option("--edits", options.edits, "rows to turn round")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--cosine", options.least_cosine, "only rows with at least this cosine")
      ->capture_default_str();
  app.add_option("--probability", options.enough,
                 "refine the direction until the head gives the concept this")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--rounds", options.rounds, "or so many rounds")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000000));
  app.add_option("--tries", options.tries, "perturbations a round")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  app.add_option("--noise", options.noise, "their length beside the direction's")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 100.0));
  app.add_option("--seed", options.seed, "of the noise")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 32));
  app.add_option("--heldout", heldout_tokens,
                 "tokens of the embedded held-out text to measure the harm on; 0: none")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 24));
  app.add_option("--threads", threads, "threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_flag("--force", force, "replace the output folder");
  app.add_flag("--json", json, "one object on stdout");
  app.add_flag("-q,--quiet", quiet, "no progress");
  parse(app, argc, argv);

  Terminal terminal({.quiet = quiet || json});
  const Watch watch = terminal.watch();
  const Session session = open_session(model, {.dtype = "float32", .threads = thread_count(threads)});
  const std::vector<int32_t> tokens = spellings(session.tokenizer, concept_text);
  if (prompt.empty())
    prompt = fmt::format(
        "{0} is known for many things. Here is all there is to know about {0}. This text is about",
        concept_text);
  const std::vector<int32_t> ids = session.tokenizer.encode(prompt);
  neurons::Erasure erasure =
      neurons::erase(*session.model, session.opened.checkpoint, ids, tokens, options, watch);
  Plan& plan = erasure.plan;
  Json log = Json::array();
  for (const neurons::ErasedRow& row : erasure.rows)
    log.push_back({{"neuron", fmt::format("{}.{}", row.block, row.neuron)},
                   {"vector", vector_name(row.vector)},
                   {"cosine", row.cosine},
                   {"norm", row.norm}});
  plan.provenance = {
      {"lamina", version_text()},
      {"method",
       {{"method", "neurons erase"},
        {"concept", concept_text},
        {"prompt", prompt},
        {"edits", options.edits},
        {"cosine", options.least_cosine},
        {"probability", options.enough},
        {"rounds", options.rounds},
        {"tries", options.tries},
        {"noise", options.noise},
        {"seed", options.seed}}},
      {"rows", log},
      {"model", {{"name", shown(model.filename())}, {"sha256", session.opened.checkpoint.hash(watch)}}}};

  // Before and after: the concept after its prompt, and everything else on text that is not about it.
  const Opened edited = declare(apply(session.opened.checkpoint, session.opened.blueprint, plan));
  const auto after = build_model(edited, {.dtype = at::kFloat});
  const neurons::ClampInput input{.prompt = ids, .concept_tokens = tokens, .tokens = 0};
  const double p_before = std::exp(neurons::unclamped(*session.model, input).answer.concept_log_p);
  const double p_after = std::exp(neurons::unclamped(*after, input).answer.concept_log_p);
  std::vector<double> kl;
  if (heldout_tokens > 0) {
    std::vector<int32_t> text = session.tokenizer.encode(embedded_heldout().text);
    if (std::ssize(text) > heldout_tokens) text.resize(static_cast<size_t>(heldout_tokens));
    kl = divergences(*session.model, *after, text, std::min<int64_t>(256, session.opened.blueprint.context),
                     watch);
  }
  double mean = 0, median = 0;
  if (!kl.empty()) {
    for (double value : kl) mean += value / static_cast<double>(kl.size());
    std::ranges::nth_element(kl, kl.begin() + std::ssize(kl) / 2);
    median = kl[kl.size() / 2];
  }
  const std::string summary = fmt::format(
      "{} row{} turned round to make the model forget {}: its probability after the prompt went from {:.3g} "
      "to "
      "{:.3g}. Experimental.",
      erasure.rows.size(), erasure.rows.size() == 1 ? " was" : "s were", in_quotes(concept_text), p_before,
      p_after);
  const Written written = write_edited(session.opened, plan,
                                       {.out = out,
                                        .replace = force,
                                        .command = command_line(argc, argv, "neurons erase"),
                                        .summary = summary},
                                       watch);
  terminal.clear();
  const Json record = {
      {"concept", concept_text},
      {"tokens", tokens},
      {"p_before", p_before},
      {"p_after", p_after},
      {"direction", {{"p_start", erasure.p_start}, {"p_end", erasure.p_end}, {"rounds", erasure.rounds}}},
      {"rows", log},
      {"heldout", {{"tokens", kl.size()}, {"mean_kl", mean}, {"median_kl", median}}},
      {"folder", shown(out)}};
  if (json) {
    print(record.dump(2) + "\n");
    return Status::ok;
  }
  std::string text = summary + "\n";
  for (const neurons::ErasedRow& row : erasure.rows)
    text += fmt::format("  {}.{} {}  cosine {:.3f}\n", row.block, row.neuron, vector_name(row.vector),
                        row.cosine);
  text += fmt::format("direction: p {:.3g} at the start, {:.3g} after {} rounds\n", erasure.p_start,
                      erasure.p_end, erasure.rounds);
  if (!kl.empty())
    text += fmt::format(
        "held-out text, {} tokens: KL median {:.3g}, mean {:.3g} nats (the paper, five concepts out of "
        "Llama 3.1 8B: median 0.002)\n",
        thousands(std::ssize(kl)), median, mean);
  text += fmt::format("{}  {}\nlamina neurons undo {} -o ORIGINAL takes it back\n", shown(out),
                      human_bytes(written.weight_bytes), shown(out));
  print(text);
  return Status::ok;
}

}  // namespace lamina::cli
