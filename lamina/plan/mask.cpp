#include "lamina/plan/mask.h"

#include <algorithm>
#include <charconv>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

namespace {

constexpr std::string_view kSpellings =
    "write a bit a group, the leftmost nearest the input (0011), from:16, blocks:8-15,20, middle, all or "
    "none";

int block_in(std::string_view text, std::string_view spelling, const Blueprint& blueprint) {
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || number < 0)
    fail("the mask plan {}: {} is no block number; {}", in_quotes(spelling), in_quotes(text), kSpellings);
  if (number >= blueprint.blocks)
    fail("the mask plan {} names block {}, but the model has blocks 0 to {}", in_quotes(spelling), number,
         blueprint.blocks - 1);
  return number;
}

const Part* attention_of(int block, const Blueprint& blueprint) {
  const auto it = std::ranges::find_if(blueprint.parts, [&](const Part& part) {
    return part.block == block && part.kind == Kind::attention && part.present;
  });
  return it == blueprint.parts.end() ? nullptr : &*it;
}

std::vector<int> listed(std::string_view list, std::string_view spelling, const Blueprint& blueprint) {
  std::vector<int> blocks;
  for (const std::string& entry : split(list, ',')) {
    const std::string_view range = trim(entry);
    const size_t dash = range.find('-');
    const int first = block_in(range.substr(0, dash), spelling, blueprint);
    const int last =
        dash == std::string_view::npos ? first : block_in(range.substr(dash + 1), spelling, blueprint);
    if (last < first)
      fail("the mask plan {}: {} runs backwards; write {}-{}", in_quotes(spelling), in_quotes(range), last,
           first);
    for (int block = first; block <= last; ++block) {
      if (!attention_of(block, blueprint))
        fail("the mask plan {} names block {}, whose attention is gone from this model", in_quotes(spelling),
             block);
      if (std::ranges::find(blocks, block) != blocks.end())
        fail("the mask plan {} names block {} twice", in_quotes(spelling), block);
      blocks.push_back(block);
    }
  }
  std::ranges::sort(blocks);
  return blocks;
}

std::vector<int> range(int first, int end) {
  std::vector<int> blocks;
  for (int block = first; block < end; ++block) blocks.push_back(block);
  return blocks;
}

// Group g of n: blocks [g blocks / n, (g + 1) blocks / n), so that what does not divide makes the last ones
// larger.
std::vector<int> of_bits(std::string_view bits, const Blueprint& blueprint) {
  const int groups = static_cast<int>(bits.size());
  if (groups > blueprint.blocks)
    fail("the mask plan {} has {} groups, and the model {} blocks; give it a bit a block at most",
         in_quotes(bits), groups, blueprint.blocks);
  std::vector<int> blocks;
  for (int group = 0; group < groups; ++group) {
    if (bits[static_cast<size_t>(group)] == '0') continue;
    const auto more = range(group * blueprint.blocks / groups, (group + 1) * blueprint.blocks / groups);
    blocks.insert(blocks.end(), more.begin(), more.end());
  }
  return blocks;
}

}  // namespace

MaskPlan mask_plan(std::string_view spelling, const Blueprint& blueprint) {
  constexpr std::string_view kFrom = "from:", kBlocks = "blocks:";
  MaskPlan plan{.name = std::string(spelling)};
  if (spelling == "none" || spelling == "causal") {
  } else if (spelling == "all") {
    plan.blocks = range(0, blueprint.blocks);
  } else if (spelling == "middle") {
    // The authors' own: n / 2 -+ ((n / 3) / 2) blocks.
    const int half = std::max(1, blueprint.blocks / 3 / 2), middle = blueprint.blocks / 2;
    plan.blocks = range(std::max(0, middle - half), std::min(blueprint.blocks, middle + half));
  } else if (spelling.starts_with(kFrom)) {
    plan.blocks = range(block_in(spelling.substr(kFrom.size()), spelling, blueprint), blueprint.blocks);
  } else if (spelling.starts_with(kBlocks)) {
    plan.blocks = listed(spelling.substr(kBlocks.size()), spelling, blueprint);
  } else if (!spelling.empty() && spelling.find_first_not_of("01") == std::string_view::npos) {
    plan.blocks = of_bits(spelling, blueprint);
  } else {
    fail("{} is no mask plan; {}", in_quotes(spelling), kSpellings);
  }
  return plan;
}

std::vector<MaskPlan> every_mask_plan(int groups, const Blueprint& blueprint) {
  constexpr int kMost = 16;
  if (groups < 1 || groups > kMost)
    fail("all plans of {} groups cannot be tried; 1 to {} groups can", groups, kMost);
  std::vector<MaskPlan> plans;
  for (int bits = 0; bits < 1 << groups; ++bits) {
    std::string spelling;
    for (int group = groups - 1; group >= 0; --group) spelling += (bits >> group) & 1 ? '1' : '0';
    plans.push_back(mask_plan(spelling, blueprint));
  }
  return plans;
}

MaskPlan mask_plan_of(const Blueprint& blueprint) {
  MaskPlan plan;
  for (const Part& part : blueprint.parts) {
    if (part.present && !part.causal) plan.blocks.push_back(part.block);
  }
  const auto same = [&](const MaskPlan& other) { return other.blocks == plan.blocks; };
  for (int groups : {4, 3, 2, 1}) {
    if (groups > blueprint.blocks) continue;
    const auto every = every_mask_plan(groups, blueprint);
    if (const auto it = std::ranges::find_if(every, same); it != every.end()) return *it;
  }
  plan.name = "blocks:" + ranges_text(plan.blocks);
  return plan;
}

Plan edits_of(const MaskPlan& plan, const Blueprint& blueprint) {
  Plan edits;
  for (int block : plan.blocks) {
    if (const Part* part = attention_of(block, blueprint); part && part->causal)
      edits.edits.emplace_back(Unmask{part->path});
  }
  return edits;
}

}  // namespace lamina
