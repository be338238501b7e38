// A model opened to be run: what every verb that computes starts from.
#pragma once

#include <memory>

#include "lamina/cli/text_of.h"
#include "lamina/models/registry.h"

namespace lamina::cli {

struct Session {
  Opened opened;
  Tokenizer tokenizer;
  std::unique_ptr<Model> model;
};

struct SessionOptions {
  std::string dtype = "float32";
  int threads = 1;
  bool keep_narrow = false;
};
Session open_session(const std::filesystem::path& path, const SessionOptions& options);

// The threads that --threads asks for; 0 stands for all cores.
int thread_count(int asked);

}  // namespace lamina::cli
