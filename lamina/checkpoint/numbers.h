// The numbers of one tensor taken out of the file's bytes, to be changed and put back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lamina/checkpoint/checkpoint.h"

namespace lamina {

// The type that changed numbers are stored in: the tensor's own, or float32 where that is a block type or
// another that cannot be written.
DType editable_dtype(DType dtype);

// The type for numbers that are computed rather than chosen: float64 stays, all else becomes float32, so that
// a narrow type is rounded to once, when it is written.
DType computed_dtype(DType dtype);

// All bytes of a tensor in the family's own row order, as `as`.
std::vector<std::byte> bytes_as(const Stored& tensor, DType as);

// Gives a tensor bytes of its own, of its type and in its own row order.
void own(Stored& tensor, std::vector<std::byte> bytes);

class Numbers {
 public:
  explicit Numbers(const Stored& tensor) : Numbers(tensor, editable_dtype(tensor.dtype)) {}
  // `dtype`: float64 only for a tensor that is.
  Numbers(const Stored& tensor, DType dtype);
  double at(int64_t index) const;
  std::vector<double> run(int64_t first, int64_t count) const;
  // Rounded to the type. Throws Error when a finite value is too large for it.
  void set(int64_t index, double value);
  void set_run(int64_t first, std::span<const double> values);
  // Ends the editing: the tensor holds these numbers, in bytes of its own.
  void put(Stored& tensor) &&;

 private:
  std::string name_;
  DType dtype_;
  std::vector<std::byte> bytes_;
};

}  // namespace lamina
