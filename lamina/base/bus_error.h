// A mapped file that another program makes shorter, and a disk that fails under one, raise SIGBUS where its
// bytes are touched.
#pragma once

namespace lamina {

// From now on that ends the program with a sentence that names the file, and status 1. For a program's main:
// the library alone never ends the process.
void explain_bus_errors();

}  // namespace lamina
