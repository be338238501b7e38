#include "lamina/report/impl/example.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace lamina::report::impl {

namespace {

using enum Notation;

// Numbers that look measured and are the same everywhere.
class Noise {
 public:
  double next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state_ >> 40) / static_cast<double>(1 << 24);
  }

 private:
  uint64_t state_ = 42;
};

constexpr int blocks = 30;
constexpr int parts = 2 * blocks;
constexpr int steps = 8;
constexpr std::array<int, steps> order = {54, 55, 52, 49, 57, 46, 50, 43};  // part numbers, as they went

std::string label(int part) {
  return fmt::format("{}{}", part % 2 == 0 ? "A" : "F", part / 2);
}

// Rise of the loss when a part is cut alone: ends of the stack matter most, attention less than the MLP
// beside it.
double score(int part, Noise& noise) {
  const double depth = static_cast<double>(part / 2) / (blocks - 1);
  const double shape = 0.012 + 1.9 * std::exp(-11 * depth) + 0.35 * std::exp(-14 * (1 - depth));
  return shape * (part % 2 == 0 ? 0.7 : 1.2) * (0.75 + 0.5 * noise.next());
}

std::vector<Figure> pruning_figures() {
  const auto counted = "counted from the tensors in the file";
  return {
      {.name = "Parameters",
       .before = 134515008,
       .after = 116819136,
       .format = {scaled, 4, ""},
       .better = Figure::Better::lower,
       .measured = counted},
      {.name = "File",
       .before = 269060552,
       .after = 233664712,
       .format = {scaled, 4, "B"},
       .better = Figure::Better::lower,
       .measured = "`model.safetensors`, bfloat16, tied head stored once"},
      {.name = "Compute",
       .before = 269.7e6,
       .after = 233.1e6,
       .format = {scaled, 4, "FLOPs/token"},
       .better = Figure::Better::lower,
       .measured = "by formula, at 1,024 tokens of context"},
      {.name = "Key-value cache",
       .before = 23040,
       .after = 19200,
       .format = {scaled, 4, "B/token"},
       .better = Figure::Better::lower,
       .measured = "bfloat16, 25 of 30 attentions left"},
      {.name = "Speed",
       .before = 41.8,
       .after = 47.6,
       .format = {fixed, 1, "tokens/s"},
       .better = Figure::Better::higher,
       .measured = "decoding 256 tokens, float32, 2 threads, median of 5 runs",
       .uncertainty = 0.4},
      {.name = "Held-out perplexity",
       .before = 17.42,
       .after = 19.87,
       .format = {fixed, 2, ""},
       .better = Figure::Better::lower,
       .measured = "64 x 1,024 tokens of wiki.test, stride 1,024, float32",
       .uncertainty = 0.21},
  };
}

Network pruning_network() {
  Network network{.title = "30 blocks of attention (A) and MLP (F)",
                  .score_name = "rise of loss when cut alone",
                  .format = {significant, 3, ""},
                  .scale = Scale::logarithmic,
                  .note = "Scores are nats a token on the calibration text, from the search's first step."};
  Noise noise;
  for (int block = 0; block < blocks; ++block) {
    Block row{.name = fmt::format("{}", block)};
    for (int part = 2 * block; part < 2 * block + 2; ++part) {
      const auto at = std::ranges::find(order, part);
      row.parts.push_back({.label = label(part),
                           .state = at == order.end() ? Part::State::kept : Part::State::cut,
                           .score = score(part, noise),
                           .step = at == order.end() ? 0 : static_cast<int>(at - order.begin()) + 1,
                           .note = part % 2 == 0 ? "885,312 parameters" : "2,654,784 parameters"});
    }
    network.blocks.push_back(std::move(row));
  }
  return network;
}

Series quality_against_budget() {
  Series series{
      .title = "Held-out perplexity against sub-layers removed",
      .x = {"sub-layers removed", whole()},
      .y = {"held-out perplexity", {fixed, 2, ""}, Scale::logarithmic},

      .chosen = steps,
      .note =
          "64 x 1,024 tokens of wiki.test. The band is the range of three random orders (seeds 0, 1, 2)."};
  const auto curve = [](std::string name, Curve::Role role, double linear, double square) {
    Curve made{.name = std::move(name), .role = role};
    for (int removed = 0; removed <= 16; ++removed) {
      made.x.push_back(removed);
      made.y.push_back(17.42 * std::exp(linear * removed + square * removed * removed));
    }
    return made;
  };
  series.curves.push_back(curve("FinerCut", Curve::Role::method, 0.0045, 0.00149));
  series.curves.push_back(curve("BlockPruner", Curve::Role::baseline, 0.018, 0.0026));
  Curve shortgpt = curve("ShortGPT", Curve::Role::baseline, 0.05, 0.004);
  std::erase_if(shortgpt.x, [](double x) { return static_cast<int>(x) % 2 == 1; });
  shortgpt.y.clear();
  for (const double x : shortgpt.x) shortgpt.y.push_back(17.42 * std::exp(0.05 * x + 0.004 * x * x));
  series.curves.push_back(std::move(shortgpt));
  series.curves.push_back(curve("last blocks", Curve::Role::baseline, 0.12, 0.003));
  Curve random = curve("random", Curve::Role::baseline, 0.19, 0.002);
  for (size_t i = 0; i < random.x.size(); ++i) {
    const double spread = 1 + 0.05 * random.x[i];
    random.low.push_back(random.y[i] / spread);
    random.high.push_back(random.y[i] * spread * (i > 8 ? 1.3 : 1));
  }
  series.curves.push_back(std::move(random));
  return series;
}

HeatMap candidates_by_step() {
  HeatMap map{.title = "Every candidate at every step",
              .column_axis = "candidate",
              .row_axis = "step",
              .value_name = "score",
              .format = {significant, 3, ""},
              .scale = Scale::logarithmic,
              .note =
                  "A candidate is given up as soon as its score passes the best one so far; its cell then "
                  "holds a lower bound."};
  for (int part = 0; part < parts; ++part) map.columns.push_back(label(part));
  for (int step = 0; step < steps; ++step) {
    map.rows.push_back(fmt::format("{}", step + 1));
    Noise noise;
    for (int part = 0; part < parts; ++part) {
      const auto at = std::ranges::find(order, part) - order.begin();
      const double value = score(part, noise) * (1 + 0.22 * step) + 0.004 * step;
      HeatCell cell{.value = value};
      if (at < step) cell = {.value = not_measured, .sort = HeatCell::Sort::absent};
      if (at == step)
        cell = {.value = 0.011 + 0.005 * step, .chosen = true};
      else if (at > step && value > 0.12 * (1 + 0.1 * step))
        cell = {.value = 0.12 * (1 + 0.1 * step), .sort = HeatCell::Sort::bound};
      map.cells.push_back(cell);
    }
  }
  return map;
}

Series scores_by_step() {
  Series series{.title = "Perplexity where the search looked, and where it did not",
                .x = {"sub-layers removed", whole()},
                .y = {"perplexity", {fixed, 2, ""}},
                .chosen = steps,
                .note =
                    "In sample: the calibration text that scored the candidates. Held out: text that the "
                    "search never read."};
  Curve held{.name = "held out", .role = Curve::Role::method},
      in{.name = "in sample", .role = Curve::Role::baseline};
  for (int removed = 0; removed <= steps; ++removed) {
    held.x.push_back(removed), in.x.push_back(removed);
    held.y.push_back(17.42 * std::exp(0.0045 * removed + 0.00149 * removed * removed));
    in.y.push_back(16.03 * std::exp(0.003 * removed + 0.0011 * removed * removed));
  }
  series.curves = {std::move(held), std::move(in)};
  return series;
}

Table steps_table() {
  Table table{
      .title = "What went, and what it cost",
      .columns = {{"Step", Column::Kind::number, whole()},
                  {"Cut", Column::Kind::label},
                  {"Score", Column::Kind::number, {significant, 3, "nats"}},
                  {"In sample", Column::Kind::number, {fixed, 2, "ppl"}},
                  {"Held out", Column::Kind::number, {fixed, 2, "ppl"}},
                  {"Time", Column::Kind::number, {fixed, 1, "s"}}},
  };
  for (int step = 1; step <= steps; ++step) {
    table.rows.push_back(
        {.cells = {step, label(order[static_cast<size_t>(step - 1)]), 0.006 + 0.005 * step,
                   16.03 * std::exp(0.003 * step + 0.0011 * step * step),
                   17.42 * std::exp(0.0045 * step + 0.00149 * step * step), 61.3 - 2.1 * step},
         .mark = step == steps ? "chosen" : ""});
  }
  return table;
}

Table samples() {
  return {
      .title = {},
      .columns = {{"Prompt", Column::Kind::prose},
                  {"Before", Column::Kind::prose},
                  {"After", Column::Kind::prose}},
      .rows = {{.cells = {"Explain why the sky is blue, in two sentences.",
                          "The sky looks blue because air scatters short wavelengths of sunlight more than "
                          "long ones. When you look away from the sun, most of the light that reaches you "
                          "has been scattered, and it is mostly blue.",
                          "The sky is blue because the air scatters blue light more than red light. The "
                          "light that reaches your eyes from the sky is scattered light, so it looks blue."}},
               {.cells = {"Write a function in Python that reverses a list.",
                          "def reverse(items):\n    return items[::-1]",
                          "def reverse(items):\n    return items[::-1]"}},
               {.cells = {"Name three rivers in Europe and the seas they reach.",
                          "The Danube reaches the Black Sea, the Rhine the North Sea, and the Rhône the "
                          "Mediterranean.",
                          "The Danube reaches the Black Sea, the Rhine reaches the North Sea, and the Rhine "
                          "reaches the Rhine Sea."},
                .mark = "worst of 24"}},
      .note =
          "Greedy decoding, 64 tokens. The prompts are fixed (`prompts/chat-24.txt`): its first two, and the "
          "one whose answer lost most likelihood under the uncut model."};
}

}  // namespace

Report pruning_example() {
  const Table how{
      .title = "Options and data",
      .columns = {{"What", Column::Kind::label}, {"Value", Column::Kind::code}},
      .rows = {{.cells = {"model",
                          "SmolLM2-135M-Instruct, sha256 "
                          "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c"}},
               {.cells = {"calibration", "16 x 1,024 tokens of wiki.train, sha256 d2b1c7a9…"}},
               {.cells = {"held out", "64 x 1,024 tokens of wiki.test, sha256 90aa1e3f…"}},
               {.cells = {"measure", "js-divergence of the next token, mean over tokens"}},
               {.cells = {"seeds", "0 (search), 0 1 2 (random order)"}},
               {.cells = {"hardware", "2 cores at 2.6 GHz with AVX2, 16 GB; no accelerator"}}},
  };
  const Table time{.title = "Time by phase",
                   .columns = {{"Phase", Column::Kind::label},
                               {"Seconds", Column::Kind::number, {fixed, 1, ""}},
                               {"Share", Column::Kind::number, {fixed, 0, "%"}},
                               {"Rate", Column::Kind::number, {fixed, 1, "GFLOP/s"}},
                               {"Of the floor", Column::Kind::number, {fixed, 0, "%"}}},
                   .rows = {{.cells = {"read and convert", 1.2, 0.3, Cell(), Cell()}},
                            {.cells = {"search, 8 steps", 411.6, 84, 88.4, 81}},
                            {.cells = {"baselines", 58.9, 12, 86.0, 79}},
                            {.cells = {"write and reopen", 3.4, 0.7, Cell(), Cell()}}},
                   .note =
                       "The floor is the same floating-point work at the rate of one large matrix product on "
                       "this machine, 109 GFLOP/s."};
  const Table files{
      .title = "Files",
      .columns = {{"File", Column::Kind::code},
                  {"Size", Column::Kind::number, {scaled, 3, "B"}},
                  {"Opens in", Column::Kind::label},
                  {"Checked", Column::Kind::label}},
      .rows = {{.cells = {"hf-zeroed/", 269060552, "transformers 5.23, vLLM, lm-eval",
                          "logits equal to ours within 3e-5 on 512 tokens"}},
               {.cells = {"hf-perlayer/", 233664712, "lamina", "logits equal to hf-zeroed"}},
               {.cells = {"model-q8_0.gguf", 124302112, "llama.cpp (architecture deci)",
                          "perplexity 19.91 by llama-perplexity"}}},
  };
  return {
      .title = "FinerCut: 8 of 60 sub-layers cut from SmolLM2-135M-Instruct",
      .date = "2026-11-24",
      .version = "0.1.0",
      .command =
          "lamina prune SmolLM2-135M-Instruct -o smaller --method finercut --cut 8 --calibration "
          "wiki.train:16x1024 --held-out wiki.test:64x1024 --seed 0",
      .verdict = {.sentence = "The model is 13 % smaller and decodes 14 % faster; on text that the search "
                              "never read, perplexity rises from 17.42 to 19.87.",
                  .figures = pruning_figures()},
      .sections =
          {
              {.title = "The network", .elements = {pruning_network()}},
              {.title = "Quality against budget",
               .elements = {quality_against_budget(), scores_by_step(), steps_table()}},
              {.title = "How the choice was made", .elements = {candidates_by_step()}},
              {.title = "What to look at yourself", .elements = {samples()}},
              {.title = "How it was done", .elements = {how, time}, .folded = true},
              {.title = "What does not hold",
               .elements = {Text{.text = "The paper keeps 95 % of the quality at 25 % of the layers on "
                                         "models of 8 B parameters and more. On this model of 135 M "
                                         "parameters, perplexity has risen by 14 % at 13 %.\n\n"
                                         "Speed was measured on one machine only. On accelerators the gain "
                                         "of cutting attention depends on the context length.\n\n"
                                         "In sample the loss rises more slowly than held out from step 5 on: "
                                         "the search fits its calibration text.",
                                 .form = Text::Form::list}}},
              {.title = "Open it elsewhere",
               .elements = {files,
                            Text{.text = "python -c \"from transformers import pipeline; "
                                         "print(pipeline('text-generation', 'smaller/hf-zeroed')('The sky "
                                         "is'))\"\nllama-cli -m smaller/model-q8_0.gguf -p 'The sky is'",
                                 .form = Text::Form::code}}},
          },
  };
}

Report small_example() {
  Network network{
      .title = "2 blocks", .score_name = "score", .format = {significant, 2, ""}, .scale = Scale::linear};
  network.blocks.push_back(
      {.name = "0", .parts = {{.label = "A0", .score = 0.5}, {.label = "F0", .score = 0.25}}});
  network.blocks.push_back(
      {.name = "1",
       .parts = {{.label = "A1", .state = Part::State::cut, .score = 0.125, .step = 1},
                 {.label = "F1", .state = Part::State::silenced, .score = not_measured, .step = 2}}});
  const Series series{
      .title = "Loss against parts removed",
      .x = {"parts removed", whole()},
      .y = {"loss", {fixed, 2, "nats"}},
      .curves = {{.name = "ours", .role = Curve::Role::method, .x = {0, 1, 2}, .y = {1.5, 1.625, 2}},
                 {.name = "random", .x = {0, 2}, .y = {1.5, 3}, .low = {1.5, 2.5}, .high = {1.5, 3.5}}},
      .chosen = 1,
  };
  const HeatMap map{.title = "Candidates",
                    .column_axis = "candidate",
                    .row_axis = "step",
                    .columns = {"A0", "A1"},
                    .rows = {"1", "2"},
                    .cells = {{.value = 0.5, .sort = HeatCell::Sort::bound},
                              {.value = 0.125, .chosen = true},
                              {.value = 0.75},
                              {.sort = HeatCell::Sort::absent}},
                    .value_name = "score",
                    .format = {significant, 2, ""}};
  const Table table{.title = "Files <and> sizes",
                    .columns = {{"File", Column::Kind::code},
                                {"Bytes", Column::Kind::number, whole()},
                                {"Says", Column::Kind::prose}},
                    .rows = {{.cells = {"a&b.safetensors", 1048576, "one\ntwo"}},
                             {.cells = {"c", Cell(), Cell()}, .mark = "missing"},
                             {.cells = {"d", 2,
                                        Cell("Ada & Lord Byron",
                                             {{.begin = 0, .end = 3, .name = "PER"},
                                              {.begin = 6, .end = 10, .name = "<LOC>", .wrong = true}})}}},
                    .note = "A note with `code`."};
  const DotPlot dots{.title = "Plans",
                     .axis = {"F1", {fixed, 1, "%"}},
                     .groups = {"test", "development"},
                     .rows = {{.name = "01",
                               .pattern = {false, true},
                               .values = {{80.5, 79.5, 81.5}, {82, 81, 83}},
                               .mark = "chosen"},
                              {.name = "00 twice",
                               .pattern = {false, false},
                               .values = {{78, -20, 176}, {}},
                               .note = "2.0 x the tokens"}},
                     .reference = 75.25,
                     .reference_name = "00",
                     .note = "Means of 5 seeds."};
  return {.title = "Small: 2 of 4 parts gone from <toy>",
          .date = "2026-11-24",
          .version = "0.1.0",
          .command = "lamina prune toy -o out --cut 2",
          .verdict = {.sentence = "Half of it is gone.",
                      .figures = {{.name = "Parameters",
                                   .before = 2000,
                                   .after = 1000,
                                   .format = whole(),
                                   .better = Figure::Better::lower,
                                   .measured = "counted"},
                                  {.name = "Loss",
                                   .before = 1.5,
                                   .after = 2,
                                   .format = {fixed, 2, "nats"},
                                   .better = Figure::Better::lower,
                                   .measured = "on 4 tokens",
                                   .uncertainty = 0.25}}},
          .sections = {{.title = "Everything",
                        .elements = {Text{.text = "First.\n\nSecond."}, network, series, dots, map, table}},
                       {.title = "Folded",
                        .elements = {Text{.text = "one\n\ntwo", .form = Text::Form::list},
                                     Text{.text = "true", .form = Text::Form::code}},
                        .folded = true}}};
}

Report unet_example() {
  // A PNG of one pixel: enough to be a picture.
  const std::string pixel(
      "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0\x3a\x7e\x9b\x55\0\0\0\nIDATx\x9c\x63\xa8\x07"
      "\0\0\x81\0\x80\xe8\x84\x3d\x6e\0\0\0\0IEND\xae\x42\x60\x82",
      67);
  Network network{.title = "A U of four levels",
                  .score_name = "score",
                  .format = {significant, 2, ""},
                  .scale = Scale::linear};
  Noise noise;
  const auto add = [&](std::string name, Block::Side side, int count) {
    Block block{.name = std::move(name), .side = side};
    for (int i = 0; i < count; ++i) {
      block.parts.push_back(
          {.label = fmt::format("{}{}", i % 2 == 0 ? "R" : "T", i / 2), .score = noise.next()});
    }
    network.blocks.push_back(std::move(block));
  };
  add("d0", Block::Side::down, 4), add("d1", Block::Side::down, 4), add("d2", Block::Side::down, 4),
      add("d3", Block::Side::down, 2);
  add("mid", Block::Side::middle, 3);
  add("u3", Block::Side::up, 3), add("u2", Block::Side::up, 6), add("u1", Block::Side::up, 6),
      add("u0", Block::Side::up, 6);
  network.blocks[4].parts[1].state = Part::State::silenced;
  network.blocks[6].parts[3] = {.label = "T1", .state = Part::State::cut, .score = 0.01, .step = 1};
  const Pictures grid{.title = "Equal seeds",
                      .columns = {"before", "after"},
                      .rows = {"a red bicycle, seed 0", "a harbour at dawn, seed 0"},
                      .pictures = {{pixel, "a red bicycle, before"},
                                   {pixel, "a red bicycle, after"},
                                   {pixel, "a harbour, before"},
                                   {}}};
  return {.title = "2 of 38 parts gone from a U-Net",
          .date = "2026-11-24",
          .version = "0.1.0",
          .verdict = {.sentence = "An example."},
          .sections = {{.title = "The network", .elements = {network}},
                       {.title = "Pictures", .elements = {grid}}}};
}

}  // namespace lamina::report::impl
