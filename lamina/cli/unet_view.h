// A U-Net for people: its parts with what they cost, what of it stock configs can leave out, and what stands
// beside a cut one in a card.
#pragma once

#include <string>
#include <vector>

#include "lamina/export/export.h"
#include "lamina/report/model_card.h"

namespace lamina::cli {

bool is_unet(const Opened& opened);

// What `lamina inspect` says, as JSON and as text.
Json unet_json(const Opened& opened);
std::string unet_text(const Json& json);

// Parameters, weight file and multiply-adds: before and in what was written.
std::vector<report::Figure> unet_figures(const Opened& opened, const Plan& plan, const Written& written);
// Lines that open the written folder elsewhere and here.
std::vector<report::Opening> unet_openings(const Written& written);

}  // namespace lamina::cli
