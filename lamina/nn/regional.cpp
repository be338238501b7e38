#include "lamina/nn/regional.h"

#include <limits>

#include "lamina/nn/attention.h"

namespace lamina {

namespace {

int64_t whole(int64_t length, int64_t side) {
  return (length + side - 1) / side;
}

// A map of tokens, cut into windows of `side` by `side`; what is missing at the far borders is zeros.
struct Cutter {
  int64_t heads, height, width, side;
  int64_t down() const { return whole(height, side); }
  int64_t across() const { return whole(width, side); }
  int64_t windows() const { return down() * across(); }
  bool even() const { return height % side == 0 && width % side == 0; }

  Tensor padded(const Tensor& map) const {  // [..., height, width, channels]
    if (even()) return map;
    return at::constant_pad_nd(map, {0, 0, 0, across() * side - width, 0, down() * side - height});
  }
  // [batch, tokens, channels] -> [batch * windows, heads, side^2, d]
  Tensor cut(const Tensor& x) const {
    const int64_t batch = x.size(0), d = x.size(2) / heads;
    return padded(x.view({batch, height, width, x.size(2)}))
        .view({batch, down(), side, across(), side, heads, d})
        .permute({0, 1, 3, 5, 2, 4, 6})
        .reshape({batch * windows(), heads, side * side, d});
  }
  // And back.
  Tensor joined(const Tensor& x, int64_t batch) const {
    const Tensor map = x.view({batch, down(), across(), heads, side, side, x.size(3)})
                           .permute({0, 1, 4, 2, 5, 3, 6})
                           .reshape({batch, down() * side, across() * side, heads * x.size(3)});
    return map.narrow(1, 0, height).narrow(2, 0, width).reshape({batch, height * width, heads * x.size(3)});
  }
};

struct Cells {
  int64_t height, width, side;
  int64_t down() const { return whole(height, side); }
  int64_t across() const { return whole(width, side); }

  // How many tokens stand in each, [down, across].
  Tensor counts(const Tensor& like) const {
    const auto along = [&](int64_t length, int64_t cells) {
      Tensor n = at::full({cells}, static_cast<double>(side), like.options());
      if (length % side != 0) n.narrow(0, cells - 1, 1).fill_(static_cast<double>(length % side));
      return n;
    };
    return along(height, down()).unsqueeze(1) * along(width, across()).unsqueeze(0);
  }
  // Means: [batch, tokens, channels] -> [batch, cells, channels].
  Tensor means(const Tensor& x) const {
    const int64_t batch = x.size(0), channels = x.size(2);
    const Cutter cutter{1, height, width, side};
    const Tensor sums = cutter.padded(x.view({batch, height, width, channels}))
                            .view({batch, down(), side, across(), side, channels})
                            .sum({2, 4});
    return (sums / counts(x).unsqueeze(-1)).view({batch, down() * across(), channels});
  }
};

// What is added to the products of a window's queries with its tokens: [windows, side^2].
Tensor token_bias(const Cutter& cutter, const Tensor& like) {
  const Tensor there = at::ones({1, cutter.height * cutter.width, 1}, like.options());
  const Cutter one{1, cutter.height, cutter.width, cutter.side};
  return one.cut(there).view({cutter.windows(), cutter.side * cutter.side}).log();  // ln 0 is out of sight
}

// And with the cells: [windows or 1, cells].
Tensor cell_bias(const Cutter& cutter, const Cells& cells, const RegionalOptions& options,
                 const Tensor& like) {
  Tensor bias = at::zeros({1, cells.down(), 1, cells.across()}, like.options());
  if (options.log_count) bias = bias + cells.counts(like).log().unsqueeze(1).unsqueeze(0);
  if (!options.mask_own) return bias.reshape({1, cells.down() * cells.across()});
  const auto longs = like.options().dtype(at::kLong);
  const int64_t ratio = options.window / options.pool;
  const auto owner = [&](int64_t count) { return at::arange(count, longs).floor_divide(ratio); };
  const auto mine = [&](int64_t windows, int64_t count) {  // [windows, cells along]
    return at::arange(windows, longs).unsqueeze(1) == owner(count).unsqueeze(0);
  };
  const Tensor own = mine(cutter.down(), cells.down()).view({cutter.down(), 1, cells.down(), 1}) &
                     mine(cutter.across(), cells.across()).view({1, cutter.across(), 1, cells.across()});
  const Tensor all = bias.view({1, 1, cells.down(), cells.across()})
                         .expand({cutter.down(), cutter.across(), cells.down(), cells.across()});
  return all.masked_fill(own, -std::numeric_limits<double>::infinity())
      .reshape({cutter.windows(), cells.down() * cells.across()});
}

// For the windows of every sample and, without a copy, all heads and queries.
Tensor spread(const Tensor& bias, int64_t batch, const Tensor& q) {
  const int64_t keys = bias.size(-1), windows = q.size(0) / batch;
  return bias.expand({windows, keys})
      .repeat({batch, 1})
      .view({q.size(0), 1, 1, keys})
      .expand({q.size(0), q.size(1), q.size(2), keys});
}

Tensor looked(const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& bias) {
  return at::scaled_dot_product_attention(q, k, v, bias);
}

// [batch, heads, cells, d] for each window: [batch * windows, heads, cells, d].
Tensor for_windows(const Tensor& x, int64_t windows) {
  return x.unsqueeze(1)
      .expand({x.size(0), windows, x.size(1), x.size(2), x.size(3)})
      .reshape({x.size(0) * windows, x.size(1), x.size(2), x.size(3)});
}

Tensor plain(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads) {
  const int64_t d = q.size(2) / heads;
  return from_heads(attend(to_heads(q, d), to_heads(k, d), to_heads(v, d), {.causal = false}));
}

}  // namespace

Tensor attend_regional(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads, int64_t height,
                       int64_t width, const RegionalOptions& options) {
  const bool cells_seen = options.pool > 0;
  // Then every cell is of the own window.
  const bool all_in_one = height <= options.window && width <= options.window;
  const bool cells_count = cells_seen && !(all_in_one && options.mask_own);
  if (all_in_one && !cells_count && options.short_way) return plain(q, k, v, heads);
  const int64_t batch = q.size(0), d = q.size(2) / heads;
  const Cutter cutter{heads, height, width, options.window};
  const Tensor queries = cutter.cut(q), keys = cutter.cut(k), values = cutter.cut(v);
  std::optional<Tensor> inside;
  if (!cutter.even()) inside = token_bias(cutter, q);
  if (!cells_seen) {
    if (inside) inside = spread(*inside, batch, queries);
    return cutter.joined(looked(queries, keys, values, inside), batch);
  }

  const Cells cells{height, width, options.pool};
  const Tensor cell_keys = to_heads(cells.means(k), d);
  Tensor cell_values = to_heads(cells.means(v), d);
  if (options.cells_look) {
    std::optional<Tensor> weight;
    if (options.log_count) weight = cells.counts(q).log().view({1, 1, 1, -1});
    const Tensor cell_queries = to_heads(cells.means(q), d);
    if (weight) weight = weight->expand({batch, heads, cell_queries.size(2), weight->size(3)}).contiguous();
    cell_values = looked(cell_queries, cell_keys, cell_values, weight);
  }
  const Tensor outside = cell_bias(cutter, cells, options, q);
  const Tensor far_keys = for_windows(cell_keys, cutter.windows()),
               far_values = for_windows(cell_values, cutter.windows());
  if (options.gate.defined()) {
    if (inside) inside = spread(*inside, batch, queries);
    const Tensor near = looked(queries, keys, values, inside);
    if (!cells_count) return cutter.joined(near, batch);
    const Tensor far = looked(queries, far_keys, far_values, spread(outside, batch, queries));
    const Tensor share = options.gate.to(q.scalar_type()).sigmoid().view({1, heads, 1, 1});
    return cutter.joined(near + share * (far - near), batch);
  }
  const Tensor near = inside ? *inside : at::zeros({1, options.window * options.window}, q.options());
  const auto rows = [&](const Tensor& bias) { return bias.expand({cutter.windows(), bias.size(1)}); };
  const Tensor bias = spread(at::cat({rows(near), rows(outside)}, 1), batch, queries);
  return cutter.joined(looked(queries, at::cat({keys, far_keys}, 2), at::cat({values, far_values}, 2), bias),
                       batch);
}

}  // namespace lamina
