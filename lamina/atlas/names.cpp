#include <array>
#include <charconv>

#include "lamina/atlas/atlas.h"
#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::atlas {

std::string_view rows_name(Rows rows) {
  constexpr std::array<std::string_view, 4> names = {"up", "gate", "down", "random"};
  return names[static_cast<size_t>(rows)];
}

std::string_view head_name(Head head) {
  return head == Head::own ? "own" : "other";
}

Json to_json(const Header& header) {
  return {{"model", header.model},
          {"model_path", header.model_path},
          {"model_sha256", header.model_sha256},
          {"head_model", header.head_model},
          {"head_sha256", header.head_sha256},
          {"lens", header.lens},
          {"norm", header.norm},
          {"lamina", header.lamina},
          {"width", header.width},
          {"neurons", header.neurons},
          {"vocabulary", header.vocabulary},
          {"blocks", header.blocks},
          {"top", header.top},
          {"random", header.random},
          {"seed", header.seed},
          {"decoded_blocks", header.decoded_blocks},
          {"more", header.more}};
}

std::string fingerprint(const Header& header) {
  Json json = to_json(header);
  for (const char* key : {"model", "model_path", "head_model", "more"}) json.erase(key);
  return json.dump();
}

std::string name_of(NeuronId id) {
  return fmt::format("{}.{}", id.block, id.neuron);
}

NeuronId neuron_id(std::string_view text) {
  NeuronId id;
  const size_t point = text.find('.');
  const auto read = [](std::string_view digits, int& value) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return !digits.empty() && digits[0] != '-' && error == std::errc() &&
           end == digits.data() + digits.size();
  };
  if (point == std::string_view::npos || !read(text.substr(0, point), id.block) ||
      !read(text.substr(point + 1), id.neuron)) {
    fail("{} names no neuron; write BLOCK.NEURON, like 12.345", in_quotes(text));
  }
  return id;
}

}  // namespace lamina::atlas
