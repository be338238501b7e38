#include <gtest/gtest.h>

TEST(Heal, Links) {}
