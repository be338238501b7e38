#include "lamina/diffusion/impl/merge.h"

#include <algorithm>

namespace lamina {

namespace {

struct Cells {
  Tensor stay, others;  // [n] int64: tokens of the map
};

Cells cells(int64_t height, int64_t width, const at::TensorOptions& options) {
  std::vector<int64_t> stay, others;
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) (y % 2 == 0 && x % 2 == 0 ? stay : others).push_back(y * width + x);
  return {at::tensor(stay, options), at::tensor(others, options)};
}

// Rows of x [batch, tokens, channels] at index [batch, n].
Tensor rows(const Tensor& x, const Tensor& index) {
  return x.gather(1, index.unsqueeze(-1).expand({-1, -1, x.size(2)}));
}

// Who is merged into whom, picture by picture.
struct Matching {
  Tensor alone, gone;  // [batch, n]: of `others`
  Tensor into;         // [batch, gone]: of `stay`
};

Matching matching(const Tensor& x, const Cells& cells, int64_t count) {
  const Tensor unit = x / x.norm(2, -1, true).clamp_min(1e-12);
  const Tensor alike =
      unit.index_select(1, cells.others).matmul(unit.index_select(1, cells.stay).transpose(1, 2));
  const auto [best, where] = alike.max(-1);
  const Tensor order = std::get<1>(best.sort(/*stable=*/true, -1, /*descending=*/true));
  const Tensor gone = order.slice(1, 0, count);
  return {.alone = order.slice(1, count), .gone = gone, .into = where.gather(1, gone)};
}

}  // namespace

int64_t Merging::count(int64_t height, int64_t width, double share) {
  const int64_t tokens = height * width, stay = ((height + 1) / 2) * ((width + 1) / 2);
  return std::min(static_cast<int64_t>(static_cast<double>(tokens) * share), tokens - stay);
}

Tensor Merging::operator()(const MapQuery& query) const {
  const Tensor& x = query.x;
  const Cells at = cells(query.height, query.width, x.options().dtype(at::kLong));
  const Matching match = matching(x, at, count(query.height, query.width, share_));
  const Tensor others = x.index_select(1, at.others);
  const Tensor wide = match.into.unsqueeze(-1).expand({-1, -1, x.size(2)});
  const Tensor stay = x.index_select(1, at.stay).scatter_reduce(1, wide, rows(others, match.gone), "mean");
  const Tensor fewer = at::cat({rows(others, match.alone), stay}, 1);

  const int64_t width = query.q.weight.size(0) / query.heads;
  const Tensor mixed = from_heads(attend(to_heads(query.q(fewer), width), to_heads(query.k(fewer), width),
                                         to_heads(query.v(fewer), width), {.causal = false}));
  const int64_t alone = match.alone.size(1);
  const Tensor of_stay = mixed.slice(1, alone);
  Tensor of_others = at::empty({x.size(0), at.others.size(0), mixed.size(2)}, mixed.options());
  const auto put = [&](const Tensor& index, const Tensor& values) {
    of_others.scatter_(1, index.unsqueeze(-1).expand({-1, -1, mixed.size(2)}), values);
  };
  put(match.alone, mixed.slice(1, 0, alone));
  put(match.gone, rows(of_stay, match.into));
  Tensor out = at::empty({x.size(0), x.size(1), mixed.size(2)}, mixed.options());
  return out.index_copy_(1, at.stay, of_stay).index_copy_(1, at.others, of_others);
}

}  // namespace lamina
