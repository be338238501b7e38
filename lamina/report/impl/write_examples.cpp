// Writes the example reports into a folder, for tests/browser and for eyes: write_examples FOLDER
#include <fmt/format.h>

#include <filesystem>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/report/impl/example.h"

int main(int argc, char** argv) {
  using namespace lamina;
  if (argc != 2) {
    fmt::print(stderr, "write_examples FOLDER: writes report.html and report.json of each example\n");
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  const auto write = [&](const std::string& name, const report::Report& report) {
    write_file(folder / (name + ".html"), report::to_html(report));
    write_file(folder / (name + ".json"), report::to_json(report).dump(1) + "\n");
  };
  try {
    write("small", report::impl::small_example());
    write("pruning", report::impl::pruning_example());
    write("unet", report::impl::unet_example());
  } catch (const Error& error) {
    fmt::print(stderr, "write_examples: {}\n", error.what());
    return 1;
  }
}
