#include "lamina/tensor/store.h"

#include <cstring>

#include "lamina/checkpoint/numbers.h"

namespace lamina {

void store(Stored& stored, const Tensor& numbers) {
  const Tensor kept = numbers.detach().to(at::kCPU).contiguous();
  std::vector<std::byte> bytes(kept.nbytes());
  std::memcpy(bytes.data(), kept.const_data_ptr(), bytes.size());
  stored.dtype = dtype_of(kept.scalar_type());
  own(stored, std::move(bytes));
}

}  // namespace lamina
