// The flags of lamina prune PIPELINE: every field of its options, with the field's own text.
#include <fmt/format.h>

#include <map>

#include "lamina/cli/cli.h"
#include "lamina/cli/prune_unet.h"

namespace lamina::cli {

namespace {

// Adds a flag for each field.
class Flags {
 public:
  explicit Flags(CLI::App& app) : app_(app) {}
  void operator()(std::string& field, const char* name, const char* help) {
    CLI::Option* option = app_.add_option(std::string("--") + name, field, help);
    if (!field.empty()) option->capture_default_str();
  }
  void operator()(int64_t& field, const char* name, const char* help) {
    app_.add_option(std::string("--") + name, field, help)->capture_default_str();
  }
  void operator()(double& field, const char* name, const char* help) {
    app_.add_option(std::string("--") + name, field, help)->capture_default_str();
  }
  void operator()(bool& field, const char* name, const char* help) {
    app_.add_flag_callback(std::string("--no-") + name, [&field] { field = false; }, help);
  }

 private:
  CLI::App& app_;
};

const std::map<std::string, std::pair<int64_t, int64_t>>& ranges() {
  static const std::map<std::string, std::pair<int64_t, int64_t>> all = {{"--rerank", {0, 10000}},
                                                                         {"--rerank-samples", {1, 100000}},
                                                                         {"--refine", {0, 100000}},
                                                                         {"--scored-pictures", {1, 10000}},
                                                                         {"--outer", {1, 64}},
                                                                         {"--window", {1, 1024}},
                                                                         {"--cell", {0, 1024}},
                                                                         {"--donors", {1, 64}},
                                                                         {"--widest", {1, 1 << 20}},
                                                                         {"--regional-side", {1, 4096}},
                                                                         {"--samples", {1, 100000}},
                                                                         {"--heldout", {1, 100000}},
                                                                         {"--batch", {1, 1024}},
                                                                         {"--draw-steps", {1, 1000}},
                                                                         {"--rows", {0, 4096}},
                                                                         {"--threads", {0, 1024}},
                                                                         {"--repeats", {1, 1000}},
                                                                         {"--cfg", {0, 100}},
                                                                         {"--random-plans", {0, 10000}},
                                                                         {"--trajectory", {0, 1000}},
                                                                         {"--trajectory-steps", {1, 1000}},
                                                                         {"--study", {0, 100000}},
                                                                         {"--subsets", {0, 16}}};
  return all;
}

// Groups by the first flag of each, in the order of the fields.
const std::map<std::string, std::string>& groups() {
  static const std::map<std::string, std::string> all = {{"--method", "What is cut"},
                                                         {"--no-cuts", "Of --method asdm"},
                                                         {"--pictures", "Data"},
                                                         {"--rows", "How"}};
  return all;
}

}  // namespace

void add_flags(CLI::App& app, UnetOptions& options) {
  const size_t before = app.get_options().size();
  Flags flags(app);
  options.fields(flags);
  const std::vector<CLI::Option*> all = app.get_options();
  std::string group;
  for (size_t i = before; i < all.size(); ++i) {
    const std::string name = "--" + all[i]->get_lnames().at(0);
    if (const auto first = groups().find(name); first != groups().end()) group = first->second;
    all[i]->group(group);
    if (const auto range = ranges().find(name); range != ranges().end())
      all[i]->check(CLI::Range(range->second.first, range->second.second));
  }
  app.get_option("--compare")->check(CLI::IsMember({"none", "all"}));
}

}  // namespace lamina::cli
