#include "lamina/heal/impl/walk.h"

#include "lamina/base/error.h"
#include "lamina/heal/impl/autocast.h"
#include "lamina/model/through.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

namespace {

namespace ag = torch::autograd;

// The tensors of a stream through which a gradient may go, in one order: x, what is shared, the stack.
std::vector<Tensor> tensors_of(const Stream& stream) {
  std::vector<Tensor> all = {stream.x};
  for (const auto& [name, tensor] : stream.shared) all.push_back(tensor);
  all.insert(all.end(), stream.stack.begin(), stream.stack.end());
  return all;
}

// The same stream over other tensors.
Stream over(Stream stream, const std::vector<Tensor>& tensors) {
  auto next = tensors.begin();
  stream.x = *next++;
  for (auto& [name, tensor] : stream.shared) tensor = *next++;
  for (Tensor& tensor : stream.stack) tensor = *next++;
  return stream;
}

// Leaves in their place.
std::vector<Tensor> cut_off(const std::vector<Tensor>& tensors, const std::vector<bool>& wanted) {
  std::vector<Tensor> leaves;
  for (size_t i = 0; i < tensors.size(); ++i)
    leaves.push_back(tensors[i].detach().set_requires_grad(wanted[i]));
  return leaves;
}

// Keeps what it is told of stages, so that it can be told again outside, with a graph.
class Stages : public Through {
 public:
  using Through::Through;
  void saw_stage(int stage, const Tensor& x) override { seen.emplace_back(stage, x); }
  std::vector<std::pair<int, Tensor>> seen;
};

// A part without a graph of its own: the stream before it is kept, and it runs again in backward.
struct Again : torch::CustomClassHolder {
  const Model* model;
  Tap* tap;
  Site site;
  Stream before;
  std::vector<bool> wanted;
  std::function<void(bool)> recomputing;
  bool narrow = false;
  // As the part left it: x, what it put on the stack, the stages that ended in it.
  size_t kept = 0;  // of the stack, what it left alone
  std::vector<int> stages = {};

  std::vector<Tensor> run(const std::vector<Tensor>& leaves) {
    Stages told(*tap);
    Stream stream = over(before, leaves);
    const std::vector<Tensor> stack = stream.stack;
    model->step(stream, site, told);
    kept = 0;
    while (kept < stack.size() && kept < stream.stack.size() && stack[kept].is_same(stream.stack[kept]))
      ++kept;
    std::vector<Tensor> made = {stream.x};
    made.insert(made.end(), stream.stack.begin() + static_cast<std::ptrdiff_t>(kept), stream.stack.end());
    stages.clear();
    for (const auto& [stage, x] : told.seen) {
      stages.push_back(stage);
      made.push_back(x);
    }
    return made;
  }
};

class Recomputed : public ag::Function<Recomputed> {
 public:
  // `anchor` wants a gradient, so that backward comes here even where the stream before does not.
  static ag::variable_list forward(ag::AutogradContext* context, at::TensorList before,
                                   const Tensor& /*anchor*/, const c10::intrusive_ptr<Again>& again) {
    context->set_materialize_grads(false);
    context->saved_data["again"] = c10::IValue::make_capsule(again);
    for (const Tensor& tensor : before) again->wanted.push_back(tensor.requires_grad());
    std::vector<Tensor> leaves = cut_off(before.vec(), again->wanted);
    again->before = over(std::move(again->before), leaves);
    // With a graph, though it is dropped: passes without one take other kernels, which round otherwise.
    const c10::AutoGradMode on(true);
    ag::variable_list made;
    for (const Tensor& tensor : again->run(leaves)) made.push_back(tensor.detach());
    return made;
  }

  static ag::variable_list backward(ag::AutogradContext* context, const ag::variable_list& gradients) {
    if (c10::GradMode::is_enabled()) fail("a part that runs again has no second derivative here");
    const auto it = context->saved_data.find("again");
    if (it == context->saved_data.end()) fail("backward went over a part that runs again twice");
    const auto again = c10::static_intrusive_pointer_cast<Again>(it->second.toCapsule());
    context->saved_data.clear();
    const std::vector<Tensor> leaves = cut_off(tensors_of(again->before), again->wanted);
    std::vector<Tensor> made;
    {
      const c10::AutoGradMode on(true);
      const Autocast as_before(leaves.front().device().type(), again->narrow);
      struct Told {
        const std::function<void(bool)>& tell;
        explicit Told(const std::function<void(bool)>& t) : tell(t) {
          if (tell) tell(true);
        }
        ~Told() {
          if (tell) tell(false);
        }
      } const told(again->recomputing);
      made = again->run(leaves);
    }
    again->before = {};
    std::vector<Tensor> from, with;
    for (size_t i = 0; i < made.size(); ++i) {
      if (!made[i].requires_grad() || !gradients[i].defined()) continue;
      from.push_back(made[i]);
      with.push_back(gradients[i]);
    }
    // The leaves of the part take their gradients here and now.
    if (!from.empty()) ag::backward(from, with);
    ag::variable_list back;
    for (const Tensor& leaf : leaves) back.push_back(leaf.grad());
    back.resize(leaves.size() + 2);  // none for the anchor, nor for what is no tensor
    return back;
  }
};

void run_again_later(const Pass& pass, Site site, Stream& stream, const Tensor& anchor) {
  auto again = c10::make_intrusive<Again>();
  again->model = &pass.model;
  again->tap = &pass.tap;
  again->site = site;
  again->before = stream;
  again->recomputing = pass.recomputing;
  again->narrow = Autocast::on(stream.x.device().type());
  const std::vector<Tensor> before = tensors_of(stream);
  const ag::variable_list made = Recomputed::apply(at::TensorList(before), anchor, again);
  const auto stack_end = made.end() - static_cast<std::ptrdiff_t>(again->stages.size());
  stream.x = made.front();
  stream.stack.resize(again->kept);
  stream.stack.insert(stream.stack.end(), made.begin() + 1, stack_end);
  for (size_t i = 0; i < again->stages.size(); ++i)
    pass.tap.saw_stage(again->stages[i], *(stack_end + static_cast<std::ptrdiff_t>(i)));
}

}  // namespace

Stream walk(const Pass& pass, Stream stream, const std::function<void(Site, const Tensor&)>& seen) {
  const bool again = pass.gradient_checkpointing && c10::GradMode::is_enabled();
  const Tensor anchor = again ? at::zeros({}, stream.x.options()).set_requires_grad(true) : Tensor();
  const std::vector<Part>& parts = pass.model.blueprint().parts;
  for (int i = 0; i < static_cast<int>(parts.size()); ++i) {
    const bool runs = parts[static_cast<size_t>(i)].present && !pass.tap.skips({i});
    if (again && runs)
      run_again_later(pass, {i}, stream, anchor);
    else
      pass.model.step(stream, {i}, pass.tap);  // of one that is gone, what stands behind it
    if (runs && seen) seen({i}, stream.x);
  }
  return stream;
}

Stream walk(const Pass& pass, const std::function<void(Site, const Tensor&)>& seen) {
  return walk(pass, pass.model.begin(pass.batch.inputs), seen);
}

Stream walk(const Pass& pass) {
  return walk(pass, std::function<void(Site, const Tensor&)>());
}

}  // namespace lamina
