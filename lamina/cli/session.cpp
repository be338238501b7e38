#include "lamina/cli/session.h"

#include <thread>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::cli {

int thread_count(int asked) {
  return asked > 0 ? asked : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

Session open_session(const std::filesystem::path& path, const SessionOptions& options) {
  const auto type = dtype_from_name(options.dtype);
  if (type != DType::f32 && type != DType::f64)
    fail("--dtype {}: float32 and float64 are possible", in_quotes(options.dtype));
  use_threads(options.threads);
  Opened opened = open(path);
  check_speaks(opened.blueprint, path.string());
  Tokenizer tokenizer = tokenizer_of(opened.checkpoint);
  auto model = build_model(opened, {.dtype = scalar_type(*type), .keep_narrow = options.keep_narrow});
  return {std::move(opened), std::move(tokenizer), std::move(model)};
}

}  // namespace lamina::cli
