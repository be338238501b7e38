#include "lamina/nn/training.h"

#include "lamina/base/error.h"
#include "lamina/nn/impl/passes.h"
#include "lamina/nn/impl/training_lanes.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

namespace training {

namespace {

using passes::flat;
using passes::turned_product;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

void refuse_second_derivatives() {
  if (at::GradMode::is_enabled())
    fail("second derivatives are not to be had from a float32 model on a CPU; use float64");
}

struct LinearNode : Function<LinearNode> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& bias, const std::optional<Tensor>& down,
                        const std::optional<Tensor>& up, double scale, bool in_out) {
    const Tensor rows = flat(x);
    Tensor y = in_out ? product(rows, weight) : turned_product(rows, weight);
    if (bias) y.add_(*bias);
    Tensor inner;
    if (down) {
      inner = at::mm(rows, down->t());
      y.addmm_(inner, up->t(), 1, scale);
    }
    // Without a gradient for the matrix its input need not be kept.
    const bool reads_x = weight.requires_grad() || (down && down->requires_grad());
    context->save_for_backward(
        {reads_x ? rows : Tensor(), weight, down.value_or(Tensor()), up.value_or(Tensor()), inner});
    context->saved_data["scale"] = scale;
    context->saved_data["in_out"] = in_out;
    context->saved_data["sizes"] = x.sizes();
    context->saved_data["bias"] = bias.has_value();
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes.back() = y.size(1);
    return y.view(sizes);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    refuse_second_derivatives();
    const variable_list saved = context->get_saved_variables();
    const Tensor &rows = saved[0], &weight = saved[1], &down = saved[2], &up = saved[3], &inner = saved[4];
    const double scale = context->saved_data["scale"].toDouble();
    const bool in_out = context->saved_data["in_out"].toBool();
    // The graph counts the inputs that are there.
    const size_t bias_at = 2, down_at = context->saved_data["bias"].toBool() ? 3 : 2, up_at = down_at + 1;
    const Tensor dy = flat(gradients[0]).contiguous();
    Tensor dx, dweight, dbias, ddown, dup, dinner;
    if (down.defined()) {
      dinner = at::mm(dy, up);
      if (scale != 1) dinner.mul_(scale);
      if (context->needs_input_grad(up_at)) {
        dup = at::mm(dy.t(), inner);
        if (scale != 1) dup.mul_(scale);
      }
      if (context->needs_input_grad(down_at)) ddown = at::mm(dinner.t(), rows);
    }
    if (context->needs_input_grad(0)) {
      dx = in_out ? turned_product(dy, weight) : product(dy, weight);
      if (down.defined()) dx.addmm_(dinner, down);
      dx = dx.view(context->saved_data["sizes"].toIntVector());
    }
    if (context->needs_input_grad(1)) dweight = in_out ? product(rows.t(), dy) : product(dy.t(), rows);
    if (down_at != bias_at && context->needs_input_grad(bias_at)) dbias = dy.sum(0);
    return {dx, dweight, dbias, ddown, dup, {}, {}};
  }
};

struct RmsNode : Function<RmsNode> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& gain, double epsilon) {
    const Tensor rows = x.contiguous();
    const passes::Normed normed = passes::rms_norm(rows, gain, epsilon);
    context->save_for_backward({rows, gain, normed.inverse});
    return normed.y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    refuse_second_derivatives();
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], gain = saved[1].contiguous(), &inverse = saved[2];
    const Tensor dy = gradients[0].contiguous();
    const int64_t width = x.size(-1), count = x.numel() / width;
    Tensor dx = at::empty_like(x);
    // As many parts whatever the threads, so that the sum has one order.
    constexpr int64_t kParts = 8;
    Tensor dgain = at::zeros({kParts, width}, x.options());
    const auto *dy_at = dy.const_data_ptr<float>(), *x_at = x.const_data_ptr<float>(),
               *gain_at = gain.const_data_ptr<float>(), *inverse_at = inverse.const_data_ptr<float>();
    auto *dx_at = dx.mutable_data_ptr<float>(), *dgain_at = dgain.mutable_data_ptr<float>();
    at::parallel_for(0, kParts, 1, [&](int64_t first, int64_t last) {
      for (int64_t part = first; part < last; ++part) {
        const int64_t begin = count * part / kParts, end = count * (part + 1) / kParts;
        training_functions().rms_backward(dy_at + begin * width, x_at + begin * width, gain_at,
                                          inverse_at + begin, dx_at + begin * width, dgain_at + part * width,
                                          end - begin, width);
      }
    });
    return {dx, context->needs_input_grad(1) ? dgain.sum(0) : Tensor(), {}};
  }
};

struct RotateNode : Function<RotateNode> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& cosine, const Tensor& sine) {
    const Tensor c = cosine.contiguous(), s = sine.contiguous();
    context->save_for_backward({c, s});
    return passes::rotated(x, c, s, 1);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    refuse_second_derivatives();
    const variable_list saved = context->get_saved_variables();
    return {passes::rotated(gradients[0], saved[0], saved[1], -1), {}, {}};
  }
};

struct GatedNode : Function<GatedNode> {
  static constexpr int64_t kRun = 1 << 14;  // numbers a worker takes at least

  static Tensor forward(AutogradContext* context, const Tensor& gate, const Tensor& up) {
    const Tensor g = gate.contiguous(), u = up.contiguous();
    context->save_for_backward({g, u});
    return passes::gated(g, u);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    refuse_second_derivatives();
    const variable_list saved = context->get_saved_variables();
    const Tensor dy = gradients[0].contiguous();
    Tensor dgate = at::empty_like(saved[0]), dup = at::empty_like(saved[1]);
    const auto *dy_at = dy.const_data_ptr<float>(), *g_at = saved[0].const_data_ptr<float>(),
               *u_at = saved[1].const_data_ptr<float>();
    auto *dgate_at = dgate.mutable_data_ptr<float>(), *dup_at = dup.mutable_data_ptr<float>();
    at::parallel_for(0, dy.numel(), kRun, [&](int64_t first, int64_t last) {
      training_functions().gated_backward(dy_at + first, g_at + first, u_at + first, dgate_at + first,
                                          dup_at + first, last - first);
    });
    return {dgate, dup};
  }
};

}  // namespace

bool applies(std::initializer_list<Tensor> tensors) {
  if (!at::GradMode::is_enabled() || at::autocast::is_autocast_enabled(at::kCPU)) return false;
  bool recorded = false;
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    if (tensor.scalar_type() != at::kFloat || !tensor.is_cpu()) return false;
    recorded = recorded || tensor.requires_grad();
  }
  return recorded;
}

Tensor product(const Tensor& a, const Tensor& b) {
  // Measured on 512 tokens: MKL makes the gradients of matrices faster where they are tall.
  const bool gradient = a.stride(0) == 1 && a.size(0) > 1 && a.stride(1) != 1;
  return gradient && b.size(1) <= a.size(0) ? at::mm(a, b) : turned_product(a, b.t());
}

Tensor linear(const Tensor& x, const Linear& layer) {
  const auto& low = layer.low_rank;
  return LinearNode::apply(x, layer.weight, layer.bias.defined() ? std::optional(layer.bias) : std::nullopt,
                           low ? std::optional(low->down) : std::nullopt,
                           low ? std::optional(low->up) : std::nullopt, low ? low->scale : 1.0, layer.in_out);
}

Tensor rms_norm(const Tensor& x, const Norm& norm) {
  return RmsNode::apply(x, norm.gain, norm.epsilon);
}

Tensor rotate(const Tensor& x, const Rotary& rotary) {
  return RotateNode::apply(x, rotary.cosine, rotary.sine);
}

Tensor gated(const Tensor& gate, const Tensor& up) {
  return GatedNode::apply(gate, up);
}

}  // namespace training

}  // namespace lamina
