// What an open atlas holds, for the files that read it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lamina/atlas/atlas.h"
#include "lamina/atlas/impl/database.h"
#include "lamina/atlas/impl/schema.h"

namespace lamina::atlas {

struct Atlas::State {
  explicit State(Database opened);

  std::optional<int64_t> id_of(Set set) const;
  IntegerRange rows_of(int64_t set) const;  // the first and last number of its neurons
  IntegerRange rows_of(int64_t set, int block) const;
  NeuronId neuron_of(int64_t row) const;  // row: in range of a set
  bool holds(Set set, NeuronId id) const;

  Database database;
  StoredHeader stored;
  std::vector<Set> sets;  // by id
};

// The vectors of a set in order, one after the other; numbers are checked.
class NeuronReader {
 public:
  explicit NeuronReader(const Atlas::State& state);
  std::optional<Decoded> read(int64_t row);  // without labels; none: not there

 private:
  const Atlas::State* state_;
  Statement statement_;
};

class TokenReader {
 public:
  explicit TokenReader(const Atlas::State& state);
  std::string text(int64_t token);

 private:
  const Atlas::State* state_;
  Statement statement_;
};

// The labels of one neuron at both poles, with their texts.
class LabelReader {
 public:
  explicit LabelReader(const Atlas::State& state);
  void read(int64_t row, Shown& shown);  // shown.decoded has its numbers already

 private:
  const Atlas::State* state_;
  Statement statement_;
  TokenReader tokens_;
};

}  // namespace lamina::atlas
