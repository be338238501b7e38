// Handled by pointer alone: what libtorch holds has another size.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  Context() = delete;
  Context(const Context&) = delete;
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
