// The smallest program that embeds lamina: it links, and both halves, with and without torch, are there.
#include <fmt/format.h>

#include "lamina/family/family.h"
#include "lamina/tensor/tensor.h"

int main() {
  for (const lamina::Architecture& architecture : lamina::architectures())
    fmt::print("{}\n", architecture.name);
  return lamina::scalar_type(lamina::DType::bf16) == at::kBFloat16 ? 0 : 1;
}
