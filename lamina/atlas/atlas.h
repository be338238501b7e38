// The atlas: what every neuron of a model says through the LM head, in one SQLite file. Written block by
// block by `lamina neurons map`, read by find, show, compare and the page. Free of torch, so that a lookup
// takes milliseconds. The schema is in schema.md beside this file; a file of another version is refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/file.h"
#include "lamina/base/json.h"

namespace lamina::atlas {

// Which vector of a neuron was decoded. `random`: directions with the norms of up rows and no meaning, the
// control that any neuron must beat.
enum class Rows { up, gate, down, random };
std::string_view rows_name(Rows rows);

// With which head: the model's own, or another model's (`map --head`).
enum class Head { own, other };
std::string_view head_name(Head head);

// One decoded family of vectors. An atlas holds one or more.
struct Set {
  Rows rows = Rows::up;
  Head head = Head::own;
  auto operator<=>(const Set&) const = default;
};

struct Label {
  int32_t token = 0;
  float score = 0;  // s = W_U w for the normalised vector w
};

// One vector read through the head. p(t) = exp(score - log_sum) is the softmax over the whole vocabulary; the
// other pole is the softmax of -s, with log_sum_negated.
struct Decoded {
  double norm = 0;                 // of the vector as stored, before any normalisation
  double mean = 0, deviation = 0;  // of the scores over the vocabulary
  double kurtosis = 0;  // of the scores: fourth central moment / variance^2 (3 for a normal); NaN: all equal
  double log_sum = 0, log_sum_negated = 0;
  std::vector<Label> top;     // largest scores first; ties by token id
  std::vector<Label> bottom;  // smallest scores first
};

// The angles between the three vectors of a neuron, as cosines; a value that does not exist (no gate) is NaN.
struct Angles {
  double gate_up = 0, up_down = 0, gate_down = 0;
};

// For one token, the vector of a set that gives it the largest probability, among all that were decoded.
struct Best {
  int block = -1;  // -1: nothing yet
  int neuron = -1;
  float score = 0;
  double log_p = 0;  // at the top pole: score - log_sum; at the bottom pole: -score - log_sum_negated
};

struct Header {
  std::string model = {};       // its name, "SmolLM2-135M-Instruct"
  std::string model_path = {};  // where it lay
  std::string model_sha256 = {};
  std::string head_model = {}, head_sha256 = {};               // whose head `Head::other` is; empty: none
  std::string lens = "unembed";                                // or "embed"
  std::string norm = "none";                                   // rms, final, fold
  std::string lamina = {};                                     // version
  int64_t width = 0, neurons = 0, vocabulary = 0, blocks = 0;  // neurons: of a block
  int64_t top = 8;                                             // labels kept at each pole
  int64_t random = 0;                                          // directions in the control
  int64_t seed = 0;
  std::vector<int64_t> decoded_blocks = {};  // which were mapped
  Json more = Json::object();                // time, hardware, command
};

struct Token {
  std::string text;      // decoded alone, invalid UTF-8 as U+FFFD
  bool special = false;  // a control token, or one that spells no text
};

// What two spellings of one word have in common: no white space around it, case folded, composed.
std::string word_of(std::string_view text);

// What decides whether an interrupted run may go on: model, options, tokens. Two headers that agree in it
// describe the same atlas.
std::string fingerprint(const Header& header);
Json to_json(const Header& header);

// Writes ATLAS.partial, a transaction a block, and renames it to ATLAS at `finish`.
class Writer {
 public:
  struct Options {
    bool resume = false;   // go on with what an interrupted run left
    bool replace = false;  // an existing ATLAS may be replaced
  };
  // Throws Error when ATLAS exists and may not be replaced, when another run holds ATLAS.partial, or when
  // what is to be resumed was made with other options.
  Writer(std::filesystem::path path, const Header& header, std::span<const Token> tokens, Options options);
  ~Writer();  // without finish: ATLAS.partial stays, to be resumed
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  bool has(Set set, int block) const;
  bool has_angles(int block) const;
  // The state of `add`'s best after the blocks that are there; empty: nothing yet. [vocabulary], per pole.
  std::vector<Best> best(Set set, bool bottom) const;
  // All neurons of a block in order (for `random`, block 0 holds all directions) and the best of each token
  // so far, at both poles.
  void add(Set set, int block, std::span<const Decoded> neurons, std::span<const Best> best_top,
           std::span<const Best> best_bottom);
  void add_angles(int block, std::span<const Angles> neurons);
  // Throws Error when a set lacks a block that the header names. ATLAS is there when this returns.
  void finish(const Json& more);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct NeuronId {
  int block = 0;
  int neuron = 0;
  auto operator<=>(const NeuronId&) const = default;
};
// "12.345"; throws Error for anything else.
NeuronId neuron_id(std::string_view text);
std::string name_of(NeuronId id);  // "12.345"

// One label of a neuron as a reader sees it.
struct Reading {
  int32_t token = 0;
  std::string text;
  double score = 0;
  double p = 0;       // softmax(s) at the token
  double p_pole = 0;  // at the top pole p again, at the bottom pole softmax(-s)
};

struct Shown {
  Decoded decoded;  // top and bottom as stored
  std::vector<Reading> top, bottom;
  int64_t kurtosis_rank = 0;  // 1: the highest of the set
  int64_t of = 0;             // neurons in the set
};

struct Hit {
  NeuronId id;
  Set set;
  bool bottom = false;
  int rank = 0;  // 1: the token is the neuron's first label at that pole
  Reading reading;
  double kurtosis = 0;
  std::string first;  // the neuron's first label at that pole
};

// How far the best neuron of a token stands out, against two things that mean nothing.
struct Control {
  Set set;
  bool bottom = false;
  int32_t token = 0;
  Best best;                   // of the neurons
  std::optional<Best> random;  // of the random directions; none: the atlas holds no control
  int64_t random_directions = 0;
  double above_tokens = 0;  // share of the other (not special) tokens whose best neuron has a smaller p
};

struct Found {
  std::vector<int32_t> spellings;  // tokens that spell the concept
  std::vector<Hit> hits;           // the likeliest first
  std::vector<Control> controls;   // one a spelling, set and pole
};

struct Comparison {
  Set set;
  std::string heads;  // "each its own", "the first one's for both"
  int64_t neurons = 0, same = 0;
  double overlap = 0;  // mean Jaccard index of the top lists
  struct Block {
    int block = 0;
    int64_t neurons = 0, same = 0;
    double overlap = 0;
  };
  std::vector<Block> blocks;
};

class Atlas {
 public:
  // Throws Error when the file is no atlas, is damaged, unfinished, or of another version. What is read later
  // is checked then, so that opening takes a millisecond. May be used from several threads at once.
  explicit Atlas(const std::filesystem::path& path);
  static Atlas over(Bytes bytes, std::string name);  // of a copy of the file's bytes in memory
  ~Atlas();
  Atlas(Atlas&&) noexcept;
  Atlas& operator=(Atlas&&) noexcept;

  const Header& header() const;
  std::vector<Set> sets() const;
  std::string token_text(int32_t token) const;

  // Tokens that spell `concept` alone: white space around it and case set aside.
  std::vector<int32_t> spellings(std::string_view concept_text) const;
  struct FindOptions {
    std::vector<Rows> rows = {};  // empty: all there are but random
    int64_t top = 20;
  };
  // Throws Error when no single token spells the concept, naming what begins like it.
  Found find(std::string_view concept_text, const FindOptions& options) const;
  // Tokens whose text begins like this, for a search box; at most `limit`.
  std::vector<int32_t> tokens_like(std::string_view start, int64_t limit) const;

  std::optional<Shown> show(Set set, NeuronId id) const;  // none: not mapped
  std::optional<Angles> angles(NeuronId id) const;
  // The neurons of a block by kurtosis, the highest first, each with the first label of its likelier pole:
  // what a page lists. block -1: all.
  std::vector<Hit> by_kurtosis(Set set, int block, int64_t limit, int64_t offset = 0) const;
  // How far the neurons of a block stand out from noise.
  struct BlockSummary {
    int block = 0;
    int64_t neurons = 0;
    double median_kurtosis = 0;
    double high_kurtosis = 0;  // share of neurons above `threshold`
  };
  std::vector<BlockSummary> summary(Set set, double threshold = 4.0) const;

  // One line a label: rows, head, block, neuron, pole, rank, token, text, score, p, p_pole.
  void write_csv(const std::filesystem::path& path) const;
  // {"header": ..., "neurons": [...]}, a line a neuron.
  void write_json(const std::filesystem::path& path) const;

  struct State;

 private:
  explicit Atlas(std::unique_ptr<State> state);
  friend std::vector<Comparison> compare(const Atlas& first, const Atlas& second);
  std::unique_ptr<State> state_;
};

// Share of neurons with the same first label, over all sets that both hold. Throws Error when the models
// differ in shape or vocabulary.
std::vector<Comparison> compare(const Atlas& first, const Atlas& second);

}  // namespace lamina::atlas
