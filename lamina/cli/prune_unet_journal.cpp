#include <fstream>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/prune_unet.h"

namespace lamina::cli {

namespace fs = std::filesystem;

UnetJournal::UnetJournal(fs::path path, const Json& identity, Options options) : path_(std::move(path)) {
  if (!options.resume || !fs::exists(path_)) {
    write_file(path_, identity.dump() + "\n");
    return;
  }
  const std::vector<std::string> lines = split(read_file(path_), '\n');
  const Json was = parse_json(lines[0], path_.string());
  for (const auto& [key, value] : identity.items()) {
    if (!was.contains(key) || was.at(key) != value)
      fail(
          "the unfinished run was made with {} {}, this one with {}; run it as it was, or without --resume "
          "to "
          "start again",
          key, was.contains(key) ? was.at(key).dump() : "unset", value.dump());
  }
  std::string whole = lines[0] + "\n";
  for (size_t i = 1; i + 1 < lines.size(); ++i) {
    if (trim(lines[i]).empty()) continue;
    Json line = parse_json(lines[i], path_.string());
    check_keys(line, {"key", "value"}, path_.string());
    done_[json_string(line, "key", path_.string())] = line.at("value");
    whole += lines[i] + "\n";
  }
  write_file(path_, whole);  // without the line that was being written
}

const Json* UnetJournal::find(const std::string& key) const {
  const auto found = done_.find(key);
  return found == done_.end() ? nullptr : &found->second;
}

void UnetJournal::add(const std::string& key, const Json& value) {
  done_[key] = value;
  std::ofstream out(path_, std::ios::app);
  out << Json{{"key", key}, {"value", value}}.dump() << "\n" << std::flush;
  if (!out) fail("{}: could not be written; is the disk full?", path_.string());
}

}  // namespace lamina::cli
