#include "lamina/format/dtype.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "lamina/base/hash.h"
#include "lamina/format/format_test.h"

namespace lamina {
namespace {

using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// The bytes that the goldens below were computed from: the top byte of a linear congruential generator.
std::vector<std::byte> noise(size_t count) {
  uint64_t state = 1;
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    byte = static_cast<std::byte>(state >> 56);
  }
  return bytes;
}

std::vector<float> decoded(DType dtype, Bytes bytes) {
  std::vector<float> values(bytes.size() / static_cast<size_t>(block_bytes(dtype)) *
                            static_cast<size_t>(block_elements(dtype)));
  decode_f32(dtype, bytes, values);
  return values;
}

std::vector<std::byte> encoded(DType dtype, std::span<const float> values) {
  std::vector<std::byte> bytes(values.size() / static_cast<size_t>(block_elements(dtype)) *
                               static_cast<size_t>(block_bytes(dtype)));
  encode_f32(values, dtype, bytes);
  return bytes;
}

float decoded_f16(uint16_t half) {
  return decoded(DType::f16, std::as_bytes(std::span(&half, 1)))[0];
}

uint16_t encoded_16(DType dtype, float value) {
  uint16_t half = 0;
  encode_f32(std::span(&value, 1), dtype, std::as_writable_bytes(std::span(&half, 1)));
  return half;
}

const std::vector<DType>& all_types() {
  static const std::vector<DType> types = [] {
    std::vector<DType> list;
    for (int i = 0; i <= static_cast<int>(DType::q6_k); ++i) list.push_back(static_cast<DType>(i));
    return list;
  }();
  return types;
}

TEST(DType, EveryNameLeadsBack) {
  for (const DType dtype : all_types()) {
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype) << dtype_name(dtype);
    EXPECT_EQ(is_quantized(dtype), block_elements(dtype) > 1) << dtype_name(dtype);
  }
}

TEST(DType, ShortNamesAndCapitalsAreUnderstood) {
  EXPECT_EQ(dtype_from_name("fp16"), DType::f16);
  EXPECT_EQ(dtype_from_name("BF16"), DType::bf16);
  EXPECT_EQ(dtype_from_name("Q4_K"), DType::q4_k);
  EXPECT_EQ(dtype_from_name("f32"), DType::f32);
  EXPECT_EQ(dtype_from_name(""), std::nullopt);
  EXPECT_EQ(dtype_from_name("float17"), std::nullopt);
}

TEST(DType, CountsElementsAndBytes) {
  EXPECT_EQ(element_count({}, "t"), 1U);
  EXPECT_EQ(element_count({3, 4}, "t"), 12U);
  EXPECT_EQ(element_count({3, 0}, "t"), 0U);
  EXPECT_EQ(byte_count(DType::bf16, {}, "t"), 2U);
  EXPECT_EQ(byte_count(DType::q4_1, {5, 64}, "t"), 5U * 2 * 20);
  EXPECT_EQ(byte_count(DType::q6_k, {2, 512}, "t"), 2U * 2 * 210);
  EXPECT_EQ(byte_count(DType::q8_0, {0, 32}, "t"), 0U);
}

TEST(DType, RefusesShapesThatCannotBe) {
  constexpr int64_t huge = int64_t{1} << 40;
  EXPECT_THAT(refusal([] { element_count({2, -1}, "t"); }), HasSubstr("negative size"));
  EXPECT_THAT(refusal([] { element_count({huge, huge}, "t"); }), HasSubstr("more elements"));
  EXPECT_THAT(refusal([] { element_count({0, huge, huge}, "t"); }), HasSubstr("more elements"));
  EXPECT_THAT(refusal([] { element_count({huge, huge, 0}, "t"); }), HasSubstr("more elements"));
  EXPECT_THAT(refusal([] { byte_count(DType::f64, {int64_t{1} << 61}, "t"); }), HasSubstr("more bytes"));
  EXPECT_THAT(refusal([] { byte_count(DType::q4_1, {64, 33}, "t"); }), HasSubstr("blocks of 32"));
  EXPECT_THAT(refusal([] { byte_count(DType::q4_k, {}, "t"); }), HasSubstr("blocks of 256"));
}

TEST(DecodeF32, EveryFloat16) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31), mantissa = static_cast<int>(i & 1023);
    const double size =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    const float value = decoded_f16(static_cast<uint16_t>(i));
    EXPECT_EQ(std::signbit(value), i >> 15 == 1);
    if (exponent < 31) {
      ASSERT_EQ(std::fabs(value), static_cast<float>(size)) << i;
    } else {
      ASSERT_TRUE(mantissa == 0 ? std::isinf(value) : std::isnan(value)) << i;
    }
  }
}

TEST(EncodeF32, EveryFloat16ReturnsAsItWas) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto half = static_cast<uint16_t>(i);
    const float value = decoded_f16(half);
    const uint16_t back = encoded_16(DType::f16, value);
    if (std::isnan(value)) {
      ASSERT_EQ(back, half | 0x0200) << i;  // made quiet
    } else {
      ASSERT_EQ(back, half) << i;
    }
  }
}

TEST(EncodeF32, Float16RoundsToNearestEven) {
  EXPECT_EQ(encoded_16(DType::f16, 1.0F + 0x1p-11F), 0x3C00);      // half way: to even
  EXPECT_EQ(encoded_16(DType::f16, 1.0F + 3 * 0x1p-11F), 0x3C02);  // half way: to even
  EXPECT_EQ(encoded_16(DType::f16, 1.0F + 0x1p-11F + 0x1p-20F), 0x3C01);
  EXPECT_EQ(encoded_16(DType::f16, 65504.0F), 0x7BFF);
  EXPECT_EQ(encoded_16(DType::f16, 65519.99F), 0x7BFF);
  EXPECT_EQ(encoded_16(DType::f16, 65520.0F), 0x7C00);
  EXPECT_EQ(encoded_16(DType::f16, -kInfinity), 0xFC00);
  EXPECT_EQ(encoded_16(DType::f16, 0x1p-24F), 0x0001);
  EXPECT_EQ(encoded_16(DType::f16, 0x1p-25F), 0x0000);  // half way: to even
  EXPECT_EQ(encoded_16(DType::f16, 3 * 0x1p-25F), 0x0002);
  EXPECT_EQ(encoded_16(DType::f16, -0x1.8p-25F), 0x8001);
  EXPECT_EQ(encoded_16(DType::f16, 0x1.ffcp-15F), 0x03FF + 1);  // up into the normal numbers
  EXPECT_EQ(encoded_16(DType::f16, -0.0F), 0x8000);
}

TEST(EncodeF32, Bfloat16RoundsToNearestEven) {
  EXPECT_EQ(encoded_16(DType::bf16, 1.0F), 0x3F80);
  EXPECT_EQ(encoded_16(DType::bf16, std::bit_cast<float>(0x3F808000U)), 0x3F80);
  EXPECT_EQ(encoded_16(DType::bf16, std::bit_cast<float>(0x3F818000U)), 0x3F82);
  EXPECT_EQ(encoded_16(DType::bf16, std::bit_cast<float>(0x3F808001U)), 0x3F81);
  EXPECT_EQ(encoded_16(DType::bf16, std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_EQ(encoded_16(DType::bf16, -kInfinity), 0xFF80);
  EXPECT_EQ(encoded_16(DType::bf16, std::bit_cast<float>(0x7F800001U)),
            0x7FC0);  // a NaN does not become infinity
}

TEST(EncodeF32, Float64AndFloat32AreExact) {
  const std::vector<float> values = {0.0F,      -0.0F, 0.1F, 0x1p-149F, std::numeric_limits<float>::max(),
                                     -kInfinity};
  EXPECT_EQ(decoded(DType::f64, encoded(DType::f64, values)), values);
  EXPECT_EQ(decoded(DType::f32, encoded(DType::f32, values)), values);
}

TEST(DecodeF32, Float64IsRounded) {
  const double values[] = {0.1, 1e300, 0x1.000001p0};
  EXPECT_EQ(decoded(DType::f64, std::as_bytes(std::span(values))),
            (std::vector<float>{0.1F, kInfinity, 1.0F}));
}

TEST(DecodeF32, Float8) {
  const uint8_t bytes[] = {0x00, 0x80, 0x01, 0x07, 0x08, 0x38, 0xB8, 0x7E, 0x3C};
  const auto e4m3 = decoded(DType::f8_e4m3, std::as_bytes(std::span(bytes)));
  EXPECT_EQ(e4m3, (std::vector<float>{0, -0.0F, 0x1p-9F, 7 * 0x1p-9F, 0x1p-6F, 1, -1, 448, 1.5F}));
  EXPECT_TRUE(std::signbit(e4m3[1]));
  const uint8_t halves[] = {0x00, 0x80, 0x01, 0x03, 0x04, 0x38, 0xB8, 0x7C, 0x3C};
  const auto e5m2 = decoded(DType::f8_e5m2, std::as_bytes(std::span(halves)));
  EXPECT_EQ(e5m2,
            (std::vector<float>{0, -0.0F, 0x1p-16F, 3 * 0x1p-16F, 0x1p-14F, 0.5F, -0.5F, kInfinity, 1}));
  const uint8_t nan[] = {0x7F, 0xFF};
  EXPECT_TRUE(std::isnan(decoded(DType::f8_e4m3, std::as_bytes(std::span(nan)))[0]));
  EXPECT_TRUE(std::isnan(decoded(DType::f8_e5m2, std::as_bytes(std::span(nan)))[1]));
}

struct Golden {
  DType dtype;
  std::vector<size_t> halves;  // where a block holds float16: their exponent is kept finite
  std::string_view
      sha256;  // of the float32 bytes that gguf 0.19's quants.dequantize gives for 16 blocks of noise
};

const std::vector<Golden> kGoldens = {
    {DType::q4_0, {0}, "f971f3a75012dc7a5a671a70ee30a02d90a5706355af8abcfb01a214cdb6ce0f"},
    {DType::q4_1, {0, 2}, "42e4dd3237729d32e45faef9e26973c2f706184bababf223d00581183e928820"},
    {DType::q5_0, {0}, "3dbc6f0a6c1bfd8d87da1acf91676c2f2e339a5a4e58b444335c64d84c3930e8"},
    {DType::q5_1, {0, 2}, "209c240223c3312659caf65ea2ed926bfd5637abd433adc2c96c8c640992b098"},
    {DType::q8_0, {0}, "e07aecb0642e6ef9aae5dbe5ba4640a6b2527d9d57c5adb3200dec3705270ecb"},
    {DType::q2_k, {80, 82}, "d7b7d3b175950c18c59af22d1059ad3d63f34e793039dcf1ef4e2d3727d21c0a"},
    {DType::q3_k, {108}, "93d31138d12c88160dd118483dbfb1ac0503c69cdb94e36324d76dccf0407727"},
    {DType::q4_k, {0, 2}, "cf6701526f77a8e30fb1c6aad423eef3a07ba6aa801448810b6439a6b37921dd"},
    {DType::q5_k, {0, 2}, "d8661f0f3fc61fe3e4e882f3ed5330a7b1702af41ba4abccd8c3b5777b11fa40"},
    {DType::q6_k, {208}, "912377c289c8f36ec6ef30e318908352af79a12bfecf6b759415277dc32d4697"},
};

std::vector<std::byte> blocks_of(const Golden& golden) {
  const auto block = static_cast<size_t>(block_bytes(golden.dtype));
  std::vector<std::byte> bytes = noise(block * 16);
  for (size_t i = 0; i < 16; ++i) {
    for (const size_t at : golden.halves) bytes[i * block + at + 1] &= std::byte{0xBF};
  }
  return bytes;
}

TEST(DecodeF32, BlocksAgreeWithGgmlBitForBit) {
  for (const Golden& golden : kGoldens) {
    const auto values = decoded(golden.dtype, blocks_of(golden));
    EXPECT_EQ(sha256_hex(std::as_bytes(std::span(values))), golden.sha256) << dtype_name(golden.dtype);
  }
}

TEST(DecodeF32, BytesNeedNoAlignment) {
  for (const Golden& golden : kGoldens) {
    auto bytes = blocks_of(golden);
    const auto expected = decoded(golden.dtype, bytes);
    bytes.insert(bytes.begin(), std::byte{0});
    EXPECT_EQ(decoded(golden.dtype, Bytes(bytes).subspan(1)), expected) << dtype_name(golden.dtype);
  }
}

TEST(EncodeF32, Q8_0AgreesWithGgmlBitForBit) {
  std::vector<float> values;
  for (const std::byte byte : noise(64 * 32)) {
    const int exponent = static_cast<int>(values.size() / 32) - 45;
    values.push_back(std::ldexp(static_cast<float>(static_cast<int>(byte) - 128), exponent - 7));
  }
  // gguf 0.19, quants.quantize(values, Q8_0)
  EXPECT_EQ(sha256_hex(encoded(DType::q8_0, values)),
            "0cfce1579f0a35bd9185bfbdedf4167d7a639ea3722117d75fb483eaf7b270d5");
}

TEST(EncodeF32, Q8_0OfZerosAndOfTheTiniest) {
  const std::vector<float> zeros(32, 0.0F), tiny(32, 0x1p-149F);
  EXPECT_EQ(decoded(DType::q8_0, encoded(DType::q8_0, zeros)), zeros);
  EXPECT_EQ(decoded(DType::q8_0, encoded(DType::q8_0, tiny)), zeros);
}

TEST(EncodeF32, Q8_0RefusesWhatItCannotHold) {
  for (const float bad : {kInfinity, -kInfinity, kNaN}) {
    std::vector<float> values(32, 1.0F);
    values[17] = bad;
    EXPECT_THAT(refusal([&] { encoded(DType::q8_0, values); }), HasSubstr("cannot hold infinities"));
  }
  EXPECT_THAT(refusal([] { encoded(DType::q8_0, std::vector<float>(32, 1e9F)); }),
              HasSubstr("cannot hold 1e+09"));
}

TEST(DecodeF32, RefusesSizesThatDisagree) {
  std::vector<float> values(32);
  const std::vector<std::byte> bytes(64);
  EXPECT_THAT(refusal([&] { decode_f32(DType::f32, bytes, values); }), HasSubstr("32 numbers"));
  EXPECT_THAT(refusal([&] { decode_f32(DType::q4_1, bytes, values); }), HasSubstr("32 numbers"));
  EXPECT_THAT(refusal([&] { decode_f32(DType::q4_k, Bytes(bytes).first(0), values); }),
              HasSubstr("32 numbers"));
  decode_f32(DType::f16, bytes, values);
}

TEST(DecodeF32, RefusesTypesThatAreNoFloats) {
  for (const DType dtype : all_types()) {
    const auto elements = static_cast<size_t>(block_elements(dtype));
    const std::vector<std::byte> bytes(static_cast<size_t>(block_bytes(dtype)));
    std::vector<float> values(elements);
    if (is_floating(dtype)) {
      decode_f32(dtype, bytes, values);
      EXPECT_EQ(values, std::vector<float>(elements)) << dtype_name(dtype);
    } else {
      EXPECT_THAT(refusal([&] { decode_f32(dtype, bytes, values); }), HasSubstr("float32"));
    }
  }
  std::vector<std::byte> bytes(18);
  EXPECT_THAT(refusal([&] { encode_f32(std::vector<float>(32), DType::q4_0, bytes); }), HasSubstr("choose"));
}

TEST(DecodeF32, NothingIsNothing) {
  for (const DType dtype : all_types()) {
    if (is_floating(dtype)) decode_f32(dtype, {}, {});
  }
  encode_f32({}, DType::f32, {});
}

}  // namespace
}  // namespace lamina
