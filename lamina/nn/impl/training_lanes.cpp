// Compiled once for each instruction set; LAMINA_LANES names the set. Nothing of the standard library is
// instantiated here.
#include "lamina/nn/impl/training_lanes.h"

#include "lamina/nn/lanes.h"

namespace lamina {

namespace {

using namespace lanes;

inline void write(float* to, Lane lane) {
  __builtin_memcpy(to, &lane, sizeof lane);
}

// Calls `whole(i)` for each whole lane and `rest(i)` for each number after them.
template <class Whole, class Rest>
inline void over(int64_t count, Whole whole, Rest rest) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) whole(i);
  for (; i < count; ++i) rest(i);
}

inline Lane sigmoid(Lane x) {
  // exp takes at most 88; beyond that the sigmoid is 0 to float32 anyway.
  return 1.0f / (1.0f + exponential(smaller(-x, Lane{} + 88.0f)));
}
inline float sigmoid(float x) {
  return sigmoid(Lane{} + x)[0];
}

void rms_forward(const float* x, const float* gain, float* y, float* inverse, int64_t rows, int64_t width,
                 double epsilon) {
  for (int64_t r = 0; r < rows; ++r, x += width, y += width) {
    Lane squares{};
    double sum = 0;
    over(
        width, [&](int64_t i) { squares += read(x + i) * read(x + i); },
        [&](int64_t i) { sum += static_cast<double>(x[i]) * static_cast<double>(x[i]); });
    sum += total(squares);
    const auto scale = static_cast<float>(1 / __builtin_sqrt(sum / static_cast<double>(width) + epsilon));
    inverse[r] = scale;
    over(
        width, [&](int64_t i) { write(y + i, read(x + i) * scale * read(gain + i)); },
        [&](int64_t i) { y[i] = x[i] * scale * gain[i]; });
  }
}

// With n = x / rms: dx = (dy gain - n mean(dy gain n)) / rms.
void rms_backward(const float* dy, const float* x, const float* gain, const float* inverse, float* dx,
                  float* dgain, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r, dy += width, x += width, dx += width) {
    const float scale = inverse[r];
    Lane products{};
    double sum = 0;
    over(
        width,
        [&](int64_t i) {
          const Lane along = read(dy + i) * read(x + i) * scale;
          write(dgain + i, read(dgain + i) + along);
          products += along * read(gain + i);
        },
        [&](int64_t i) {
          const float along = dy[i] * x[i] * scale;
          dgain[i] += along;
          sum += static_cast<double>(along) * static_cast<double>(gain[i]);
        });
    sum += total(products);
    const auto shared = static_cast<float>(sum / static_cast<double>(width)) * scale;
    over(
        width,
        [&](int64_t i) { write(dx + i, (read(dy + i) * read(gain + i) - read(x + i) * shared) * scale); },
        [&](int64_t i) { dx[i] = (dy[i] * gain[i] - x[i] * shared) * scale; });
  }
}

void gated_forward(const float* gate, const float* up, float* y, int64_t count) {
  over(
      count, [&](int64_t i) { write(y + i, read(gate + i) * sigmoid(read(gate + i)) * read(up + i)); },
      [&](int64_t i) { y[i] = gate[i] * sigmoid(gate[i]) * up[i]; });
}

void gated_backward(const float* dy, const float* gate, const float* up, float* dgate, float* dup,
                    int64_t count) {
  over(
      count,
      [&](int64_t i) {
        const Lane g = read(gate + i), s = sigmoid(g), d = read(dy + i);
        write(dup + i, d * g * s);
        write(dgate + i, d * read(up + i) * s * (1.0f + g * (1.0f - s)));
      },
      [&](int64_t i) {
        const float g = gate[i], s = sigmoid(g);
        dup[i] = dy[i] * g * s;
        dgate[i] = dy[i] * up[i] * s * (1.0f + g * (1.0f - s));
      });
}

void rotate(const float* x, int64_t step, const float* cosine, const float* sine, float sign, float* y,
            int64_t heads, int64_t width) {
  const int64_t half = width / 2;
  for (int64_t h = 0; h < heads; ++h, x += step, y += width) {
    over(
        half,
        [&](int64_t i) {
          const Lane a = read(x + i), b = read(x + half + i);
          write(y + i, a * read(cosine + i) - b * (read(sine + i) * sign));
          write(y + half + i, b * read(cosine + half + i) + a * (read(sine + half + i) * sign));
        },
        [&](int64_t i) {
          const float a = x[i], b = x[half + i];
          y[i] = a * cosine[i] - b * (sine[i] * sign);
          y[half + i] = b * cosine[half + i] + a * (sine[half + i] * sign);
        });
  }
}

}  // namespace

extern const TrainingFunctions LAMINA_LANES;
const TrainingFunctions LAMINA_LANES = {rms_forward, rms_backward, gated_forward, gated_backward, rotate};

}  // namespace lamina
