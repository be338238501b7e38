// SHA-256 (OpenSSL) for provenance: of models, texts and plans.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "lamina/base/file.h"

namespace lamina {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void add(Bytes bytes);
  void add(std::string_view text) { add(as_bytes(text)); }
  std::string hex();  // ends the hash

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(Bytes bytes);
inline std::string sha256_hex(std::string_view text) {
  return sha256_hex(as_bytes(text));
}

}  // namespace lamina
