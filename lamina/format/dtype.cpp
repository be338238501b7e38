#include "lamina/format/dtype.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

static_assert(std::endian::native == std::endian::little,
              "files are little endian, and so are the loads here");

namespace {

struct Traits {
  DType dtype;
  std::string_view name;
  int64_t elements;  // of one block
  int64_t bytes;     // of one block
};

constexpr std::array kTraits = {
    Traits{DType::f64, "float64", 1, 8},         Traits{DType::f32, "float32", 1, 4},
    Traits{DType::f16, "float16", 1, 2},         Traits{DType::bf16, "bfloat16", 1, 2},
    Traits{DType::i64, "int64", 1, 8},           Traits{DType::i32, "int32", 1, 4},
    Traits{DType::i16, "int16", 1, 2},           Traits{DType::i8, "int8", 1, 1},
    Traits{DType::u64, "uint64", 1, 8},          Traits{DType::u32, "uint32", 1, 4},
    Traits{DType::u16, "uint16", 1, 2},          Traits{DType::u8, "uint8", 1, 1},
    Traits{DType::boolean, "bool", 1, 1},        Traits{DType::f8_e4m3, "float8_e4m3fn", 1, 1},
    Traits{DType::f8_e5m2, "float8_e5m2", 1, 1}, Traits{DType::q4_0, "q4_0", 32, 18},
    Traits{DType::q4_1, "q4_1", 32, 20},         Traits{DType::q5_0, "q5_0", 32, 22},
    Traits{DType::q5_1, "q5_1", 32, 24},         Traits{DType::q8_0, "q8_0", 32, 34},
    Traits{DType::q2_k, "q2_k", 256, 84},        Traits{DType::q3_k, "q3_k", 256, 110},
    Traits{DType::q4_k, "q4_k", 256, 144},       Traits{DType::q5_k, "q5_k", 256, 176},
    Traits{DType::q6_k, "q6_k", 256, 210},
};

constexpr bool in_enum_order() {
  for (size_t i = 0; i < kTraits.size(); ++i) {
    if (static_cast<size_t>(kTraits[i].dtype) != i) return false;
  }
  return true;
}
static_assert(in_enum_order(), "kTraits is indexed by DType");

const Traits& traits_of(DType dtype) {
  return kTraits[static_cast<size_t>(dtype)];
}

struct Alias {
  std::string_view name;
  DType dtype;
};

constexpr std::array kAliases = {
    Alias{"f64", DType::f64},         Alias{"fp64", DType::f64},        Alias{"double", DType::f64},
    Alias{"f32", DType::f32},         Alias{"fp32", DType::f32},        Alias{"float", DType::f32},
    Alias{"f16", DType::f16},         Alias{"fp16", DType::f16},        Alias{"half", DType::f16},
    Alias{"bf16", DType::bf16},       Alias{"i64", DType::i64},         Alias{"i32", DType::i32},
    Alias{"i16", DType::i16},         Alias{"i8", DType::i8},           Alias{"u64", DType::u64},
    Alias{"u32", DType::u32},         Alias{"u16", DType::u16},         Alias{"u8", DType::u8},
    Alias{"boolean", DType::boolean}, Alias{"f8_e4m3", DType::f8_e4m3}, Alias{"float8_e4m3", DType::f8_e4m3},
    Alias{"f8_e5m2", DType::f8_e5m2},
};

// Branch-free and without a denormal operand, so that the loop vectorises and flush-to-zero does not change
// it.
float from_f16(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000U} << 16;
  const uint32_t rest = uint32_t{half & 0x7FFFU} << 13;
  constexpr uint32_t rebias = uint32_t{127 - 15} << 23;
  constexpr uint32_t one = uint32_t{1} << 23;
  const uint32_t normal = rest + rebias;
  const uint32_t special = normal + rebias;  // infinity and NaN: the exponent becomes 255
  const uint32_t tiny = std::bit_cast<uint32_t>(std::bit_cast<float>(normal + one) - 0x1p-14F);
  const uint32_t magnitude = rest < (uint32_t{0x0400} << 13)    ? tiny
                             : rest >= (uint32_t{0x7C00} << 13) ? special
                                                                : normal;
  return std::bit_cast<float>(sign | magnitude);
}

// Round to nearest even. A NaN stays a NaN: the top of its payload is kept and made quiet.
uint16_t to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000U;
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  constexpr uint32_t rebias = uint32_t{127 - 15} << 23;
  const uint32_t normal = (magnitude - rebias + 0xFFFU + ((magnitude >> 13) & 1U)) >> 13;
  // 0.5 has the unit 2^-24, which is the unit of float16's subnormals: the addition does the rounding.
  const uint32_t tiny =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - std::bit_cast<uint32_t>(0.5F);
  const uint32_t nan = 0x7E00U | ((magnitude >> 13) & 0x3FFU);
  const uint32_t half = magnitude > 0x7F800000U             ? nan
                        : magnitude >= 0x477FF000U          ? 0x7C00U  // rounds past 65504
                        : magnitude < (uint32_t{113} << 23) ? tiny
                                                            : normal;
  return static_cast<uint16_t>(sign | half);
}

float from_bf16(uint16_t half) {
  return std::bit_cast<float>(uint32_t{half} << 16);
}

uint16_t to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40U;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFU) > 0x7F800000U ? nan : rounded);
}

// The "fn" kind: no infinities, and all ones is NaN.
float from_e4m3(uint8_t byte) {
  const int exponent = (byte >> 3) & 15;
  const int mantissa = byte & 7;
  float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                  : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  if (exponent == 15 && mantissa == 7) magnitude = std::numeric_limits<float>::quiet_NaN();
  return std::copysign(magnitude, byte & 0x80 ? -1.0F : 1.0F);
}

float from_e5m2(uint8_t byte) {
  return from_f16(static_cast<uint16_t>(byte << 8));
}

// The blocks as ggml lays them out. d, m and min are float16; the order of the float operations is ggml's
// too, so that every bit agrees (this file is compiled without fused multiply-add).
struct Q4_0 {
  uint16_t d;
  uint8_t low_high[16];
};
struct Q4_1 {
  uint16_t d, m;
  uint8_t low_high[16];
};
struct Q5_0 {
  uint16_t d;
  uint8_t fifth_bits[4];
  uint8_t low_high[16];
};
struct Q5_1 {
  uint16_t d, m;
  uint8_t fifth_bits[4];
  uint8_t low_high[16];
};
struct Q8_0 {
  uint16_t d;
  int8_t values[32];
};
struct Q2K {
  uint8_t scales[16];
  uint8_t values[64];
  uint16_t d, min;
};
struct Q3K {
  uint8_t third_bits[32];
  uint8_t values[64];
  uint8_t scales[12];
  uint16_t d;
};
struct Q4K {
  uint16_t d, min;
  uint8_t scales[12];
  uint8_t low_high[128];
};
struct Q5K {
  uint16_t d, min;
  uint8_t scales[12];
  uint8_t fifth_bits[32];
  uint8_t low_high[128];
};
struct Q6K {
  uint8_t low_high[128];
  uint8_t top_bits[64];
  int8_t scales[16];
  uint16_t d;
};

constexpr int64_t elements_of(DType dtype) {
  return kTraits[static_cast<size_t>(dtype)].elements;
}

void decode(const Q4_0& block, float* to) {
  const float d = from_f16(block.d);
  for (int i = 0; i < 16; ++i) {
    to[i] = d * static_cast<float>((block.low_high[i] & 15) - 8);
    to[i + 16] = d * static_cast<float>((block.low_high[i] >> 4) - 8);
  }
}

void decode(const Q4_1& block, float* to) {
  const float d = from_f16(block.d), m = from_f16(block.m);
  for (int i = 0; i < 16; ++i) {
    to[i] = d * static_cast<float>(block.low_high[i] & 15) + m;
    to[i + 16] = d * static_cast<float>(block.low_high[i] >> 4) + m;
  }
}

// The 32 fifth bits, one an element.
uint32_t bits_of(const uint8_t (&bytes)[4]) {
  uint32_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

void decode(const Q5_0& block, float* to) {
  const float d = from_f16(block.d);
  const uint32_t fifth = bits_of(block.fifth_bits);
  for (int i = 0; i < 16; ++i) {
    const uint32_t low = (block.low_high[i] & 15U) | ((fifth >> i & 1U) << 4);
    const uint32_t high = (block.low_high[i] >> 4U) | ((fifth >> (i + 16) & 1U) << 4);
    to[i] = d * static_cast<float>(static_cast<int>(low) - 16);
    to[i + 16] = d * static_cast<float>(static_cast<int>(high) - 16);
  }
}

void decode(const Q5_1& block, float* to) {
  const float d = from_f16(block.d), m = from_f16(block.m);
  const uint32_t fifth = bits_of(block.fifth_bits);
  for (int i = 0; i < 16; ++i) {
    const uint32_t low = (block.low_high[i] & 15U) | ((fifth >> i & 1U) << 4);
    const uint32_t high = (block.low_high[i] >> 4U) | ((fifth >> (i + 16) & 1U) << 4);
    to[i] = d * static_cast<float>(static_cast<int>(low)) + m;
    to[i + 16] = d * static_cast<float>(static_cast<int>(high)) + m;
  }
}

void decode(const Q8_0& block, float* to) {
  const float d = from_f16(block.d);
  for (int i = 0; i < 32; ++i) to[i] = static_cast<float>(block.values[i]) * d;
}

// k-quants: 256 elements in eight rows of 32; a row takes one bit position of 32 bytes that rows share.

void decode(const Q2K& block, float* to) {
  const float d = from_f16(block.d), min = from_f16(block.min);
  for (int part = 0; part < 16; ++part) {  // 16 elements share a scale
    const float scale = d * static_cast<float>(block.scales[part] & 15);
    const float offset = min * static_cast<float>(block.scales[part] >> 4);
    const uint8_t* values = block.values + part / 8 * 32 + part % 2 * 16;
    const int shift = part / 2 % 4 * 2;
    for (int i = 0; i < 16; ++i) *to++ = scale * static_cast<float>(values[i] >> shift & 3) - offset;
  }
}

void decode(const Q3K& block, float* to) {
  const float d = from_f16(block.d);
  for (int part = 0; part < 16; ++part) {
    const int low = block.scales[part % 8] >> (part / 8 * 4) & 15;
    const int high = block.scales[8 + part % 4] >> (part / 4 * 2) & 3;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    const uint8_t* values = block.values + part / 8 * 32 + part % 2 * 16;
    const uint8_t* third = block.third_bits + part % 2 * 16;
    const int shift = part / 2 % 4 * 2;
    for (int i = 0; i < 16; ++i) {
      const int value = (values[i] >> shift & 3) + (third[i] >> (part / 2) & 1) * 4 - 4;
      *to++ = scale * static_cast<float>(value);
    }
  }
}

// Eight scales and eight minima of six bits each, packed into twelve bytes.
struct ScaleAndMin {
  float scale, min;
};
ScaleAndMin six_bits(const uint8_t (&packed)[12], int row) {
  if (row < 4) return {static_cast<float>(packed[row] & 63), static_cast<float>(packed[row + 4] & 63)};
  const int low = packed[row + 4] & 15, high = packed[row + 4] >> 4;
  return {static_cast<float>(low | (packed[row - 4] >> 6) << 4),
          static_cast<float>(high | (packed[row] >> 6) << 4)};
}

void decode(const Q4K& block, float* to) {
  const float d = from_f16(block.d), min = from_f16(block.min);
  for (int row = 0; row < 8; ++row) {
    const auto packed = six_bits(block.scales, row);
    const float scale = d * packed.scale, offset = min * packed.min;
    const uint8_t* values = block.low_high + row / 2 * 32;
    const int shift = row % 2 * 4;
    for (int i = 0; i < 32; ++i) *to++ = scale * static_cast<float>(values[i] >> shift & 15) - offset;
  }
}

void decode(const Q5K& block, float* to) {
  const float d = from_f16(block.d), min = from_f16(block.min);
  for (int row = 0; row < 8; ++row) {
    const auto packed = six_bits(block.scales, row);
    const float scale = d * packed.scale, offset = min * packed.min;
    const uint8_t* values = block.low_high + row / 2 * 32;
    const int shift = row % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int value = (values[i] >> shift & 15) | (block.fifth_bits[i] >> row & 1) << 4;
      *to++ = scale * static_cast<float>(value) - offset;
    }
  }
}

void decode(const Q6K& block, float* to) {
  const float d = from_f16(block.d);
  for (int part = 0; part < 16; ++part) {
    const float scale = d * static_cast<float>(block.scales[part]);
    const int row = part / 2 % 4, half = part / 8, start = part % 2 * 16;
    const uint8_t* values = block.low_high + half * 64 + row % 2 * 32 + start;
    const uint8_t* top = block.top_bits + half * 32 + start;
    const int shift = row / 2 * 4, top_shift = row * 2;
    for (int i = 0; i < 16; ++i) {
      const int value = ((values[i] >> shift & 15) | (top[i] >> top_shift & 3) << 4) - 32;
      *to++ = scale * static_cast<float>(value);
    }
  }
}

template <DType dtype, class Block>
void decode_blocks(Bytes bytes, std::span<float> to) {
  constexpr auto elements = static_cast<size_t>(elements_of(dtype));
  static_assert(sizeof(Block) == kTraits[static_cast<size_t>(dtype)].bytes);
  for (size_t i = 0; i < to.size() / elements; ++i) {
    Block block;  // the mapping may be unaligned
    std::memcpy(&block, bytes.data() + i * sizeof block, sizeof block);
    decode(block, to.data() + i * elements);
  }
}

template <class Raw, class Convert>
void decode_each(Bytes bytes, std::span<float> to, Convert convert) {
  const std::byte* const from = bytes.data();
  for (size_t i = 0; i < to.size(); ++i) {
    Raw raw;
    std::memcpy(&raw, from + i * sizeof raw, sizeof raw);
    to[i] = convert(raw);
  }
}

template <class Convert>
void decode_table(Bytes bytes, std::span<float> to, Convert convert) {
  std::array<float, 256> table;
  for (size_t i = 0; i < table.size(); ++i) table[i] = convert(static_cast<uint8_t>(i));
  for (size_t i = 0; i < to.size(); ++i) to[i] = table[static_cast<size_t>(bytes[i])];
}

template <class Raw, class Convert>
void encode_each(std::span<const float> from, std::span<std::byte> bytes, Convert convert) {
  std::byte* const to = bytes.data();
  for (size_t i = 0; i < from.size(); ++i) {
    const Raw raw = convert(from[i]);
    std::memcpy(to + i * sizeof raw, &raw, sizeof raw);
  }
}

Q8_0 to_q8_0(const float* from) {
  float largest = 0, poison = 0;
  for (int i = 0; i < 32; ++i) {
    largest = std::max(largest, std::fabs(from[i]));
    poison += from[i] * 0.0F;  // NaN as soon as one value is not finite
  }
  if (poison != 0.0F) fail("q8_0 cannot hold infinities or NaN: choose bfloat16 or float32 for this tensor");
  const float d = largest / 127.0F;
  if (d >= 65520.0F)
    fail("q8_0 cannot hold {:g}, its scale is a float16: choose bfloat16 or float32", largest);
  // The reciprocal of the tiniest scales is infinite; those scales are stored as 0 anyway.
  const float reciprocal = 1.0F / d;
  const float inverse = reciprocal <= std::numeric_limits<float>::max() ? reciprocal : 0.0F;
  Q8_0 block;
  block.d = to_f16(d);
  for (int i = 0; i < 32; ++i) {
    const float scaled = from[i] * inverse;
    const float size = std::fabs(scaled);
    const int whole = static_cast<int>(size);
    const int rounded = whole + (size - static_cast<float>(whole) >= 0.5F ? 1 : 0);  // half away from zero
    block.values[i] = static_cast<int8_t>(scaled < 0.0F ? -rounded : rounded);
  }
  return block;
}

void check_size(DType dtype, size_t bytes, size_t elements) {
  const auto& traits = traits_of(dtype);
  const auto per_block = static_cast<size_t>(traits.elements), block = static_cast<size_t>(traits.bytes);
  if (elements % per_block != 0 || bytes % block != 0 || bytes / block != elements / per_block) {
    fail("{} numbers of type {} do not fit {} bytes", elements, traits.name, bytes);
  }
}

std::string text_of(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace

std::string_view dtype_name(DType dtype) {
  return traits_of(dtype).name;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  for (const Traits& traits : kTraits) {
    if (traits.name == lower) return traits.dtype;
  }
  for (const Alias& alias : kAliases) {
    if (alias.name == lower) return alias.dtype;
  }
  return std::nullopt;
}

int64_t block_elements(DType dtype) {
  return traits_of(dtype).elements;
}
int64_t block_bytes(DType dtype) {
  return traits_of(dtype).bytes;
}
bool is_quantized(DType dtype) {
  return traits_of(dtype).elements > 1;
}

bool is_floating(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::f32:
    case DType::f16:
    case DType::bf16:
    case DType::f8_e4m3:
    case DType::f8_e5m2:
      return true;
    default:
      return is_quantized(dtype);
  }
}

uint64_t element_count(const Shape& shape, std::string_view what) {
  // Zeros are left out of the product, so that [0, 2^40, 2^40] is refused as [2^40, 2^40, 0] is.
  int64_t product = 1;
  bool empty = false;
  for (int64_t size : shape) {
    if (size < 0) fail("{}: the shape {} has a negative size", what, text_of(shape));
    if (size == 0)
      empty = true;
    else if (__builtin_mul_overflow(product, size, &product)) {
      fail("{}: the shape {} has more elements than 64 bits can count", what, text_of(shape));
    }
  }
  return empty ? 0 : static_cast<uint64_t>(product);
}

uint64_t byte_count(DType dtype, const Shape& shape, std::string_view what) {
  const Traits& traits = traits_of(dtype);
  const uint64_t elements = element_count(shape, what);
  if (traits.elements > 1 && (shape.empty() || shape.back() % traits.elements != 0)) {
    fail("{}: the last axis of the shape {} does not divide into the blocks of {} elements that {} has", what,
         text_of(shape), traits.elements, traits.name);
  }
  int64_t bytes = 0;
  const auto blocks = static_cast<int64_t>(elements) / traits.elements;
  if (__builtin_mul_overflow(blocks, traits.bytes, &bytes)) {
    fail("{}: the shape {} of {} has more bytes than 64 bits can count", what, text_of(shape), traits.name);
  }
  return static_cast<uint64_t>(bytes);
}

void decode_f32(DType from, Bytes bytes, std::span<float> to) {
  check_size(from, bytes.size(), to.size());
  switch (from) {
    case DType::f64:
      return decode_each<double>(bytes, to, [](double v) { return static_cast<float>(v); });
    case DType::f32:
      if (!to.empty()) std::memcpy(to.data(), bytes.data(), bytes.size());
      return;
    case DType::f16:
      return decode_each<uint16_t>(bytes, to, from_f16);
    case DType::bf16:
      return decode_each<uint16_t>(bytes, to, from_bf16);
    case DType::f8_e4m3:
      return decode_table(bytes, to, from_e4m3);
    case DType::f8_e5m2:
      return decode_table(bytes, to, from_e5m2);
    case DType::q4_0:
      return decode_blocks<DType::q4_0, Q4_0>(bytes, to);
    case DType::q4_1:
      return decode_blocks<DType::q4_1, Q4_1>(bytes, to);
    case DType::q5_0:
      return decode_blocks<DType::q5_0, Q5_0>(bytes, to);
    case DType::q5_1:
      return decode_blocks<DType::q5_1, Q5_1>(bytes, to);
    case DType::q8_0:
      return decode_blocks<DType::q8_0, Q8_0>(bytes, to);
    case DType::q2_k:
      return decode_blocks<DType::q2_k, Q2K>(bytes, to);
    case DType::q3_k:
      return decode_blocks<DType::q3_k, Q3K>(bytes, to);
    case DType::q4_k:
      return decode_blocks<DType::q4_k, Q4K>(bytes, to);
    case DType::q5_k:
      return decode_blocks<DType::q5_k, Q5K>(bytes, to);
    case DType::q6_k:
      return decode_blocks<DType::q6_k, Q6K>(bytes, to);
    default:
      fail("numbers of type {} cannot be read as float32", dtype_name(from));
  }
}

void encode_f32(std::span<const float> from, DType to, std::span<std::byte> bytes) {
  check_size(to, bytes.size(), from.size());
  switch (to) {
    case DType::f64:
      return encode_each<double>(from, bytes, [](float v) { return static_cast<double>(v); });
    case DType::f32:
      if (!from.empty()) std::memcpy(bytes.data(), from.data(), bytes.size());
      return;
    case DType::f16:
      return encode_each<uint16_t>(from, bytes, to_f16);
    case DType::bf16:
      return encode_each<uint16_t>(from, bytes, to_bf16);
    case DType::q8_0:
      for (size_t i = 0; i < from.size() / 32; ++i) {
        const Q8_0 block = to_q8_0(from.data() + i * 32);
        std::memcpy(bytes.data() + i * sizeof block, &block, sizeof block);
      }
      return;
    default:
      fail("weights cannot be written as {}: choose float64, float32, float16, bfloat16 or q8_0",
           dtype_name(to));
  }
}

}  // namespace lamina
