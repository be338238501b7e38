// Writing a GGUF: the dialect's table read backwards. Blocks that lost their attention become blocks of 0
// heads; blocks that lost their feed-forward keep a tiny one of zeros, because llama.cpp's `deci` graph
// forgets the attention of a block whose feed-forward length is 0.
#pragma once

#include <filesystem>
#include <optional>

#include "lamina/family/family.h"

namespace lamina {

// The type a tensor gets: vectors float32; matrices as asked, or as stored in a GGUF, or float16. Rows that
// do not divide into blocks of 32 fall back to float16.
DType gguf_dtype(const Stored& tensor, const std::optional<DType>& wanted);

// `model` is what came in; `checkpoint` is it after the plan, renumbered. Reopened and compared, to the bit,
// before it takes its name.
void write_gguf(const Opened& model, const Checkpoint& checkpoint, const std::optional<DType>& dtype,
                const std::filesystem::path& path, const Watch& watch);

}  // namespace lamina
