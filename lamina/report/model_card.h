// README.md of a model folder, as model hubs read it: YAML in front for programs, then what was measured, how
// to open it, and the plan, for people. A pure function: the same card gives the same bytes.
#pragma once

#include <string>
#include <vector>

#include "lamina/report/report.h"

namespace lamina::report {

// One measured number for the hub's index of results.
struct Metric {
  std::string task = "text-generation";  // the hub's name of the task
  std::string dataset_name = {};         // "WikiText-2, test split"
  std::string dataset = {};              // the hub's name of it, or the file's: "wiki.test.raw"
  std::string name = {};                 // "Perplexity (64 x 1,024 tokens)"
  std::string type = {};                 // "perplexity"
  double value = not_measured;           // one that is not finite is left out
};

struct Opening {
  std::string tool = {};     // "transformers 5.23"
  std::string checked = {};  // what was checked there; empty: nothing was
  std::string code = {};
  std::string language = {};  // of the code: "python", "sh"
};

struct ModelCard {
  std::string title = {};
  std::string base_model = {};  // "HuggingFaceTB/SmolLM2-135M-Instruct" or the name of a folder
  std::string license = {};     // an identifier such as "apache-2.0"; empty: left out
  std::vector<std::string> languages = {};
  std::vector<std::string> tags = {};  // "lamina" is always among them
  std::string library = "transformers";
  std::string pipeline = "text-generation";
  std::string summary = {};  // the verdict's sentence
  std::vector<Figure> figures = {};
  std::vector<Metric> metrics = {};
  std::vector<Opening> openings = {};
  std::vector<std::string> plan = {};    // one line an edit: "model.layers.27.self_attn (A27), step 1"
  std::vector<std::string> limits = {};  // what does not hold
  std::string command = {};
  std::string version = {};
  std::string date = {};
};

std::string to_markdown(const ModelCard& card);

}  // namespace lamina::report
