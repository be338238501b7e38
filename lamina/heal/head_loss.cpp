#include "lamina/heal/impl/head_loss.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/heal/batches.h"
#include "lamina/heal/impl/autocast.h"
#include "lamina/nn/training.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

namespace {

namespace ag = torch::autograd;

// Numbers in a tile of logits: 64 MB of float32.
constexpr int64_t kTileNumbers = int64_t{1} << 24;
// And in a piece of it that stays in a core's cache while softmax goes over it several times.
constexpr int64_t kSliceNumbers = int64_t{1} << 17;

// The gradients that were made in the forward pass, for a loss that backward starts from with 1.
struct Made : torch::CustomClassHolder {
  Tensor hidden, weight, bias, down, up;
};

class Joined : public ag::Function<Joined> {
 public:
  using Maybe = std::optional<Tensor>;
  static Tensor forward(ag::AutogradContext* context, const Tensor& /*hidden*/, const Tensor& /*weight*/,
                        const Maybe& /*bias*/, const Maybe& /*down*/, const Maybe& /*up*/, const Tensor& sum,
                        const c10::intrusive_ptr<Made>& made) {
    context->saved_data["made"] = c10::IValue::make_capsule(made);
    return sum.clone();
  }

  static ag::variable_list backward(ag::AutogradContext* context, const ag::variable_list& gradients) {
    if (c10::GradMode::is_enabled()) fail("the loss of a head has no second derivative here");
    const auto it = context->saved_data.find("made");
    if (it == context->saved_data.end()) fail("backward went over the loss of a head twice");
    const auto made = c10::static_intrusive_pointer_cast<Made>(it->second.toCapsule());
    context->saved_data.clear();
    const Tensor& from = gradients[0];
    const auto scaled = [&, one = from.is_cpu() && from.item<double>() == 1](Tensor& gradient) {
      Tensor taken = std::exchange(gradient, {});
      return taken.defined() && !one ? taken.mul_(from.to(taken.scalar_type())) : taken;
    };
    return {scaled(made->hidden),
            scaled(made->weight),
            scaled(made->bias),
            scaled(made->down),
            scaled(made->up),
            Tensor(),
            Tensor()};
  }
};

bool learns(const Tensor& tensor) {
  return tensor.defined() && tensor.requires_grad();
}

// Adds a product to a gradient that starts as nothing.
void add_product(Tensor& sum, const Tensor& a, const Tensor& b, double scale, at::ScalarType type) {
  if (a.scalar_type() == type) {
    const bool begins = !sum.defined();
    if (begins) sum = at::empty({a.size(0), b.size(1)}, a.options());
    sum.addmm_(a, b, begins ? 0 : 1, scale);
    return;
  }
  const Tensor product = at::mm(a, b).to(type).mul_(scale);
  sum = sum.defined() ? sum.add_(product) : product;
}

// The large products, by whichever library is the faster for them.
Tensor large_product(const Tensor& a, const Tensor& b) {
  return a.is_cpu() && a.scalar_type() == at::kFloat ? training::product(a, b) : at::mm(a, b);
}

struct Slice {
  Tensor cross_entropy, kl;  // float64 scalars
};

// From logits to the loss, and in place to its gradient: softmax less what was to be said.
Slice to_gradient(const Tensor& logits, const Tensor& targets) {
  logits.sub_(logits.amax(1, true));
  const Tensor said = logits.gather(1, targets);
  logits.exp_();
  const Tensor sum = logits.sum(1, true);
  logits.mul_(sum.reciprocal());
  logits.scatter_add_(1, targets, at::full({1, 1}, -1, logits.options()).expand_as(targets));
  return {(sum.to(at::kDouble).log() - said.to(at::kDouble)).sum(), {}};
}

// T^2 KL(teacher || student) beside it.
Slice to_gradient(const Tensor& logits, const Tensor& targets, const Tensor& taught,
                  const HeadLossOptions& options) {
  const double t = options.teacher->temperature;
  const Tensor log_said = at::log_softmax(logits, 1),
               log_q = t == 1 ? log_said : at::log_softmax(logits / t, 1),
               log_p = at::log_softmax(taught / t, 1);
  const Tensor p = log_p.exp();
  const Tensor kl = (p * (log_p - log_q)).sum(1).to(at::kDouble).sum() * (t * t);
  const Tensor cross_entropy = log_said.gather(1, targets).to(at::kDouble).sum().neg();
  logits.copy_((log_q.exp() - p).mul_(t * options.teacher->weight));
  if (options.cross_entropy != 0) {
    logits.add_(log_said.exp(), options.cross_entropy);
    logits.scatter_add_(1, targets,
                        at::full({1, 1}, -options.cross_entropy, logits.options()).expand_as(targets));
  }
  return {cross_entropy, kl};
}

}  // namespace

HeadLoss head_loss(const Tensor& hidden, const Linear& head, const Tensor& targets,
                   const HeadLossOptions& options) {
  const bool tracked = c10::GradMode::is_enabled();
  const c10::NoGradGuard by_hand;
  // Autocast is for operators that autograd knows; here its one choice, narrow products, is made by hand.
  const bool narrow = Autocast::on(hidden.device().type());
  const Autocast off(hidden.device().type(), false);

  const int64_t width = hidden.size(-1);
  const Tensor flat_targets = targets.reshape({-1}).to(hidden.device());
  const int64_t positions = flat_targets.numel();
  const Tensor rows = at::nonzero(flat_targets.ne(kNotLearnt)).squeeze(1);
  const int64_t count = rows.numel();
  const bool all = count == positions;
  const Tensor flat = hidden.detach().reshape({positions, width});
  const Tensor wanted = all ? flat_targets : flat_targets.index_select(0, rows);
  const at::ScalarType type = flat.scalar_type(), wide = type == at::kDouble ? at::kDouble : at::kFloat,
                       product = narrow ? at::kBFloat16 : wide;

  const LowRank none;
  const LowRank& low_rank = head.low_rank ? *head.low_rank : none;
  const Tensor weight = (head.in_out ? head.weight.t() : head.weight).detach().to(product);
  const Tensor bias = head.bias.defined() ? head.bias.detach().to(wide) : Tensor();
  const Tensor down = head.low_rank ? low_rank.down.detach().to(product) : Tensor(),
               up = head.low_rank ? low_rank.up.detach().to(product) : Tensor();

  auto made = c10::make_intrusive<Made>();
  const bool any = tracked && (learns(hidden) || learns(head.weight) || learns(head.bias) ||
                               learns(low_rank.down) || learns(low_rank.up));
  if (any && learns(hidden)) made->hidden = at::zeros({positions, width}, flat.options());
  Tensor cross_entropy = at::zeros({}, flat.options().dtype(at::kDouble)), kl = at::zeros_like(cross_entropy);
  const Tensor taught =
      options.teacher ? options.teacher->hidden.detach().reshape({positions, -1}) : Tensor();

  const int64_t vocabulary = weight.size(0);
  const int64_t tile = std::clamp<int64_t>(kTileNumbers / vocabulary, 16, 8192);
  for (int64_t first = 0; first < count; first += tile) {
    const int64_t here = std::min(tile, count - first);
    const Tensor own = all ? Tensor() : rows.narrow(0, first, here);
    const auto taken = [&](const Tensor& from) {
      return all ? from.narrow(0, first, here) : from.index_select(0, own);
    };
    const Tensor x = taken(flat).to(product), want = wanted.narrow(0, first, here).unsqueeze(1);
    Tensor logits = large_product(x, weight.t()).to(wide);
    Tensor turned;  // [here, rank]
    if (head.low_rank) {
      turned = at::mm(x, down.t());
      logits.add_(at::mm(turned, up.t()).to(wide), low_rank.scale);
    }
    if (bias.defined()) logits.add_(bias);
    Tensor teacher;
    if (options.teacher) teacher = options.teacher->head(taken(taught)).to(wide);

    const int64_t slice = logits.is_cpu() ? std::max<int64_t>(1, kSliceNumbers / vocabulary) : here;
    for (int64_t r = 0; r < here; r += slice) {
      const int64_t some = std::min(slice, here - r);
      const Slice made_here = options.teacher
                                  ? to_gradient(logits.narrow(0, r, some), want.narrow(0, r, some),
                                                teacher.narrow(0, r, some), options)
                                  : to_gradient(logits.narrow(0, r, some), want.narrow(0, r, some));
      cross_entropy.add_(made_here.cross_entropy);
      if (made_here.kl.defined()) kl.add_(made_here.kl);
    }
    if (!any) continue;

    // With a teacher the weights stand in the gradient already.
    const double scale = options.weight * (options.teacher ? 1 : options.cross_entropy);
    const Tensor gradient = logits.to(product);
    Tensor inner;  // [here, rank]
    if (head.low_rank) inner = at::mm(gradient, up);
    if (learns(hidden)) {
      Tensor back = large_product(gradient, weight).to(wide);
      if (head.low_rank) back.add_(at::mm(inner, down).to(wide), low_rank.scale);
      back.mul_(scale);
      if (all)
        made->hidden.narrow(0, first, here).copy_(back);
      else
        made->hidden.index_copy_(0, own, back.to(type));
    }
    if (learns(head.weight)) {
      if (head.in_out)
        add_product(made->weight, x.t(), gradient, scale, wide);
      else
        add_product(made->weight, gradient.t(), x, scale, wide);
    }
    if (learns(head.bias)) {
      const Tensor sum = logits.sum(0).mul_(scale);
      made->bias = made->bias.defined() ? made->bias.add_(sum) : sum;
    }
    if (learns(low_rank.up)) add_product(made->up, gradient.t(), turned, scale * low_rank.scale, wide);
    if (learns(low_rank.down)) add_product(made->down, inner.t(), x, scale * low_rank.scale, wide);
  }

  const Tensor objective = options.teacher
                               ? cross_entropy * options.cross_entropy + kl * options.teacher->weight
                               : cross_entropy * options.cross_entropy;
  HeadLoss loss{.sum = objective * options.weight};
  loss.cross_entropy = cross_entropy.item<double>();
  loss.kl = kl.item<double>();
  if (!any) return loss;
  // A gradient that no position asked for is zero, not missing.
  const auto complete = [](Tensor& gradient, const Tensor& of) {
    if (learns(of) && !gradient.defined()) gradient = at::zeros_like(of);
    return learns(of);
  };
  if (complete(made->hidden, hidden)) made->hidden = made->hidden.view_as(hidden);
  complete(made->weight, head.weight);
  complete(made->bias, head.bias);
  complete(made->down, low_rank.down);
  complete(made->up, low_rank.up);
  const c10::AutoGradMode on(true);
  const auto maybe = [](const Tensor& tensor) {
    return tensor.defined() ? Joined::Maybe(tensor) : std::nullopt;
  };
  loss.sum = Joined::apply(hidden, head.weight, maybe(head.bias), maybe(low_rank.down), maybe(low_rank.up),
                           loss.sum, made);
  return loss;
}

}  // namespace lamina
