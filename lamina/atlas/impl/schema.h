// What stands in the file, as schema.md describes it: the statements that make the tables, the numbers of
// rows, the header's keys. Writer and reader agree because both read it here.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/atlas/atlas.h"
#include "lamina/atlas/impl/database.h"

namespace lamina::atlas {

inline constexpr int64_t kApplicationId = 0x6C41746C;  // "lAtl"
inline constexpr int64_t kVersion = 1;
inline constexpr int kTop = 0, kBottom = 1;  // poles
inline constexpr size_t kMostSets = 8;       // four kinds of rows, two heads

std::span<const std::string_view> table_statements();
std::span<const std::string_view> index_statements();
// Of a run under way: the changes of each token's best, a row a block and pole. Gone when the atlas is
// finished.
extern const std::string_view kProgressTable;
extern const std::string_view kProgressName;

// The number of a set's first neuron; its neurons follow block by block.
int64_t neurons_of(const Header& header, Rows rows);  // in the file
inline int64_t stride(const Header& header) {
  return header.blocks * header.neurons;
}
int64_t row_of(const Header& header, int64_t set, int block, int64_t neuron);
std::vector<int> blocks_of(const Header& header, Rows rows);  // directions at random are all in block 0

struct StoredHeader {
  Header header;
  std::string tokens_sha256;
  int64_t plain_tokens = 0;  // not special
};
void write_header(Database& database, const StoredHeader& stored);
// Checked: sizes make sense together.
StoredHeader read_header(const Database& database);
void check_header(const Header& header, const auto& complain) {
  const auto between = [](int64_t value, int64_t least, int64_t most) {
    return value >= least && value <= most;
  };
  constexpr int64_t most = int64_t{1} << 31;
  if (!between(header.blocks, 1, 1 << 20) || !between(header.neurons, 1, 1 << 22) ||
      !between(header.width, 1, most) || !between(header.vocabulary, 1, 1 << 30) ||
      !between(header.top, 1, 1 << 16) || header.random < 0 || header.random > stride(header)) {
    complain("the model's sizes in its header make no sense");
  }
  int64_t last = -1;
  for (int64_t block : header.decoded_blocks) {
    if (block <= last || block >= header.blocks)
      complain("the blocks in its header are out of range or order");
    last = block;
  }
}

}  // namespace lamina::atlas
