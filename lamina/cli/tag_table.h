// How the scores of a tagger look in a terminal. Free of torch.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "lamina/label/score.h"

namespace lamina::cli {

// Precision, recall, F1 and counts: of all entities, the mean of the types, and each type.
std::string score_table(const label::Score& score);
// "Wrong entities: 3 missed, ... Tags: 90 of 100 right."
std::string faults_said(std::span<const label::Mistake> mistakes, const label::Score& score);
// {"missed": 3, ...}
Json faults_json(std::span<const label::Mistake> mistakes);
// A sentence in lines as wide as the terminal.
std::string wrapped(std::string_view sentence);

}  // namespace lamina::cli
