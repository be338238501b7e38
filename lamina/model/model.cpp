#include "lamina/model/model.h"

#include "lamina/base/error.h"

namespace lamina {

Tensor Model::run(const Inputs& inputs, Tap& tap) const {
  Stream stream = begin(inputs);
  for (Site site : blueprint().present()) step(stream, site, tap);
  return finish(stream, tap);
}

Tensor Model::run(const Inputs& inputs) const {
  Tap none;
  return run(inputs, none);
}

const Stored& Weights::at(const std::string& name) const {
  const Stored* stored = checkpoint_.find(name);
  if (!stored) fail("{}: {} is missing", checkpoint_.path.string(), name);
  return *stored;
}

Tensor Weights::matrix(const std::string& name) const {
  const Stored& stored = at(name);
  const bool narrow = stored.dtype == DType::bf16 || stored.dtype == DType::f16;
  return load(stored, options_.keep_narrow && narrow ? scalar_type(stored.dtype) : options_.dtype);
}

Tensor Weights::vector(const std::string& name) const {
  return load(at(name), options_.dtype);
}

Tensor Weights::vector_or_none(const std::string& name) const {
  return checkpoint_.find(name) ? vector(name) : Tensor();
}

Linear Weights::linear(const std::string& path) const {
  return {matrix(path + ".weight"), vector_or_none(path + ".bias")};
}

}  // namespace lamina
