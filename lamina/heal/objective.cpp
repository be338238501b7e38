#include "lamina/heal/objective.h"

#include "lamina/base/error.h"
#include "lamina/heal/impl/autocast.h"
#include "lamina/heal/impl/head_loss.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

namespace {

namespace ag = torch::autograd;

// A part without a graph of its own: the stream before it is kept, and it runs again in backward.
struct Again : torch::CustomClassHolder {
  const Model* model;
  Tap* tap;
  Site site;
  Stream before;
  std::function<void(bool)> recomputing;
  bool narrow = false;
};

class Recomputed : public ag::Function<Recomputed> {
 public:
  // `anchor` wants a gradient, so that backward comes here even where the stream before does not.
  static Tensor forward(ag::AutogradContext* context, const Tensor& x, const Tensor& /*anchor*/,
                        const c10::intrusive_ptr<Again>& again) {
    context->saved_data["again"] = c10::IValue::make_capsule(again);
    context->saved_data["wanted"] = x.requires_grad();
    Stream stream = again->before;
    stream.x = x.detach().set_requires_grad(x.requires_grad());
    // With a graph, though it is dropped: passes without one take other kernels, which round otherwise.
    const c10::AutoGradMode on(true);
    again->model->step(stream, again->site, *again->tap);
    return stream.x.detach();
  }

  static ag::variable_list backward(ag::AutogradContext* context, const ag::variable_list& gradients) {
    if (c10::GradMode::is_enabled()) fail("a part that runs again has no second derivative here");
    const auto it = context->saved_data.find("again");
    if (it == context->saved_data.end()) fail("backward went over a part that runs again twice");
    const auto again = c10::static_intrusive_pointer_cast<Again>(it->second.toCapsule());
    const bool wanted = context->saved_data["wanted"].toBool();
    context->saved_data.clear();
    Stream stream = std::move(again->before);
    const Tensor x = stream.x.detach().set_requires_grad(wanted);
    stream.x = x;
    {
      const c10::AutoGradMode on(true);
      const Autocast as_before(x.device().type(), again->narrow);
      struct Told {
        const std::function<void(bool)>& tell;
        explicit Told(const std::function<void(bool)>& t) : tell(t) {
          if (tell) tell(true);
        }
        ~Told() {
          if (tell) tell(false);
        }
      } const told(again->recomputing);
      again->model->step(stream, again->site, *again->tap);
    }
    // The leaves of the part take their gradients here and now.
    if (stream.x.requires_grad()) ag::backward({stream.x}, {gradients[0]});
    return {x.grad(), Tensor(), Tensor()};
  }
};

template <class Seen>
Stream walk(const Pass& pass, const Seen& seen) {
  Stream stream = pass.model.begin(pass.batch.inputs);
  const bool again = pass.gradient_checkpointing && c10::GradMode::is_enabled();
  const Tensor anchor = again ? at::zeros({}, stream.x.options()).set_requires_grad(true) : Tensor();
  for (Site site : pass.model.blueprint().present()) {
    if (pass.tap.skips(site)) continue;
    if (again) {
      auto kept = c10::make_intrusive<Again>();
      kept->model = &pass.model;
      kept->tap = &pass.tap;
      kept->site = site;
      kept->before = stream;
      kept->before.x = stream.x.detach();
      kept->recomputing = pass.recomputing;
      kept->narrow = Autocast::on(stream.x.device().type());
      stream.x = Recomputed::apply(stream.x, anchor, kept);
    } else {
      pass.model.step(stream, site, pass.tap);
    }
    seen(site, stream.x);
  }
  return stream;
}

class CrossEntropy : public Objective {
 public:
  explicit CrossEntropy(double dropout) : dropout_(dropout) {
    if (dropout < 0 || dropout >= 1) fail("a dropout is from 0 up to but not 1, not {}", dropout);
  }
  Losses operator()(const Pass& pass) const override {
    const Stream end = lamina::walk(pass);
    Tensor read = pass.model.read_out(end, pass.tap);
    if (dropout_ > 0 && c10::GradMode::is_enabled()) read = at::dropout(read, dropout_, /*train=*/true);
    const HeadLoss loss = head_loss(read, pass.model.head(), pass.batch.targets, {.weight = pass.weight});
    return {.sum = loss.sum, .cross_entropy = loss.cross_entropy};
  }
  std::string digest() const override {
    return dropout_ > 0 ? fmt::format("cross-entropy, dropout {}", dropout_) : "cross-entropy";
  }

 private:
  double dropout_;
};

class Distillation : public Objective {
 public:
  Distillation(std::shared_ptr<const Model> teacher, DistillOptions options, std::string digest)
      : teacher_(std::move(teacher)), options_(options), digest_(std::move(digest)) {
    if (!(options_.temperature > 0)) fail("a temperature is above 0, and {} is not", options_.temperature);
    if (options_.logits < 0 || options_.hidden < 0 || options_.cross_entropy < 0)
      fail("the weights of a distillation are 0 or more");
    if (options_.logits + options_.hidden + options_.cross_entropy == 0)
      fail("every weight of the distillation is 0; nothing would be learnt");
  }

  Losses operator()(const Pass& pass) const override {
    check(pass.model.blueprint());
    std::map<int, Tensor> taught;  // by block: the stream behind it
    Tensor hidden;
    {
      const c10::NoGradGuard watching;
      Tap none;
      const Pass theirs{.model = *teacher_, .batch = pass.batch, .tap = none};
      const Stream end = walk(theirs, [&](Site site, const Tensor& x) {
        if (options_.hidden > 0) taught[teacher_->blueprint().part(site).block] = x;
      });
      hidden = teacher_->read_out(end, none);
    }
    std::map<int, Tensor> ours;
    const Stream end = walk(pass, [&](Site site, const Tensor& x) {
      if (options_.hidden > 0) ours[pass.model.blueprint().part(site).block] = x;
    });
    HeadLossOptions options{.weight = pass.weight, .cross_entropy = options_.cross_entropy};
    if (options_.logits > 0)
      options.teacher.emplace(TeacherHead{.hidden = hidden,
                                          .head = teacher_->head(),
                                          .temperature = options_.temperature,
                                          .weight = options_.logits});
    const HeadLoss said =
        head_loss(pass.model.read_out(end, pass.tap), pass.model.head(), pass.batch.targets, options);
    Losses losses{.sum = said.sum, .cross_entropy = said.cross_entropy};
    if (options_.logits > 0) losses.terms["kl"] = said.kl;
    if (options_.hidden > 0) {
      const Tensor counts = pass.batch.targets.ne(kNotLearnt).to(hidden.device());
      Tensor sum = at::zeros({}, hidden.options().dtype(at::kDouble));
      int64_t blocks = 0;
      for (const auto& [block, x] : ours) {
        const auto it = taught.find(block);
        if (it == taught.end()) continue;
        const Tensor squares = (x - it->second.to(x.scalar_type())).square().mean(-1);
        sum = sum + at::where(counts, squares, at::zeros({}, squares.options())).sum().to(at::kDouble);
        ++blocks;
      }
      sum = sum / static_cast<double>(std::max<int64_t>(1, blocks));
      losses.terms["hidden"] = sum.detach().item<double>();
      losses.sum = losses.sum + sum * (options_.hidden * pass.weight);
    }
    return losses;
  }
  std::string digest() const override { return digest_; }

 private:
  void check(const Blueprint& student) const {
    const Blueprint& teacher = teacher_->blueprint();
    if (student.vocabulary != teacher.vocabulary)
      fail("the teacher has {} tokens and the student {}; a teacher shares its student's vocabulary",
           teacher.vocabulary, student.vocabulary);
    if (options_.hidden > 0 && (student.width != teacher.width || student.blocks != teacher.blocks))
      fail(
          "the teacher has {} blocks of width {} and the student {} of width {}; hidden states are compared "
          "between equals, so give them no weight",
          teacher.blocks, teacher.width, student.blocks, student.width);
  }

  std::shared_ptr<const Model> teacher_;
  DistillOptions options_;
  std::string digest_;
};

}  // namespace

std::unique_ptr<Objective> cross_entropy(double dropout) {
  return std::make_unique<CrossEntropy>(dropout);
}

std::unique_ptr<Objective> distillation(std::shared_ptr<const Model> teacher, DistillOptions options) {
  std::string digest =
      fmt::format("distillation of {} from {}, temperature {}, logits {}, hidden {}, targets {}",
                  teacher->blueprint().family, options.teacher, options.temperature, options.logits,
                  options.hidden, options.cross_entropy);
  return std::make_unique<Distillation>(std::move(teacher), std::move(options), std::move(digest));
}

Stream walk(const Pass& pass) {
  return walk(pass, [](Site, const Tensor&) {});
}

Tensor summed_cross_entropy(const Tensor& hidden, const Linear& head, const Tensor& targets) {
  return head_loss(hidden, head, targets).sum;
}

}  // namespace lamina
