// What the question whether a form can be written and the writing share.
#pragma once

#include "lamina/family/family.h"
#include "lamina/plan/plan.h"

namespace lamina {

// Whether the config says by name which parts are gone; else by block.
bool lists_parts(const Opened& model);
// Of a model that does.
Compact compact_of(const Opened& model, const Plan& plan);
// Parts that are gone by name, put back as zeroes: stock loaders build every part, and one that writes
// nothing is as good as none. Others as they are.
Checkpoint filled(Checkpoint checkpoint, const Architecture& architecture, const Blueprint& blueprint);

bool is_narrow(DType dtype);  // 16 bits and less

}  // namespace lamina
