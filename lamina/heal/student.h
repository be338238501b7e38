// A model whose weights are being trained: leaves by tensor name, and the model built over them, so that what
// an optimizer writes into a leaf is what the next pass computes with. Weights are kept and updated in the
// type of the arithmetic (float32 or float64) whatever type the checkpoint has.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lamina/family/family.h"
#include "lamina/model/model.h"

namespace lamina {

// Hu et al., 2021 (arXiv 2106.09685), as peft does it: y + alpha / rank * (x A^T) B^T, A random, B zero.
struct LoraOptions {
  int64_t rank = 16;
  double alpha = 32;
  // Globs over paths of linear maps ("*.q_proj", "model.layers.1?.mlp.*"); empty: every linear map of every
  // part.
  std::vector<std::string> targets = {};
  double dropout = 0;  // of what each adapter reads, in training passes
};

// Whether the matrix of a linear map of a part, or of a head, stands [in, out]: it reads the residual or
// writes to it, and its other axis tells which way round.
bool stored_in_out(const Slot& slot);

struct Parameter {
  std::string name;    // the tensor's, or of an adapter "PATH.lora_A.weight", "PATH.lora_B.weight"
  Tensor value;        // a leaf that wants a gradient
  bool decays = true;  // weight decay acts on it
};

class Student {
 public:
  struct Options {
    at::ScalarType dtype = at::kFloat;
    std::optional<LoraOptions> lora = {};  // else every weight is trained
    std::vector<std::string> frozen = {};  // globs over tensor names that stay as they are
    // Globs over tensors that are trained themselves beside the adapters (peft's modules_to_save).
    std::vector<std::string> whole = {};
    bool decay_all = true;  // false: weight decay leaves vectors (norms, biases) alone
    uint64_t seed = 0;      // of the adapters' first numbers
    at::Device device = at::kCPU;
  };
  Student(Opened opened, Options options);

  const Opened& opened() const { return opened_; }
  const Options& options() const { return options_; }
  const Model& model() const { return *model_; }
  // In the order of the blueprint's slots; a tied head is one parameter.
  std::vector<Parameter>& parameters() { return parameters_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Parameter* find(std::string_view name) const;

  // The model as it now is: adapters merged, tensors that were trained as `dtype` (default: as the checkpoint
  // had them, block types as float32), all others untouched. The numbers are copied.
  Opened now(std::optional<DType> dtype = std::nullopt) const;

 private:
  struct Adapter {
    std::string path;
    bool in_out = false;  // the map it stands beside is stored so
    LowRank low_rank;
  };
  Opened opened_;
  Options options_;
  std::vector<Parameter> parameters_;
  std::vector<Adapter> adapters_;
  std::unique_ptr<Model> model_;
};

}  // namespace lamina
